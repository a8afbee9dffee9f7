"""A watched folder, through the standard library. A video's version is its size and mtime in ns."""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from resources.observations import Video
from speech.errors import Reason, SourceObjectError, SourceUnavailable
from speech.media import ByteSource, LocalFile

_log = logging.getLogger(__name__)
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_YEAR_9999 = 253_402_300_799.0


class LocalFolder:
    """See :class:`resources.source.SourceBackend`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"file://{folder}"

    def list(self, after: str | None = None) -> Iterator[Video]:
        """Regular files below the folder, name by name; links are not followed out of it."""
        yield from self._below(self._folder, Path(after).parts if after else ())

    def _below(self, folder: Path, after: Sequence[str]) -> Iterator[Video]:
        """What comes after the path whose parts are ``after`` (none: everything)."""
        for entry in self._entries(folder):
            first, rest = (after[0], after[1:]) if after else ("", ())
            if entry.name < first:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._below(Path(entry.path), rest if entry.name == first else ())
            elif entry.name != first and entry.is_file(follow_symlinks=False):
                if not _is_text(entry.path):
                    _log.warning("%r: skipped, its name is not UTF-8; rename it", entry.path)
                    continue
                try:
                    yield self._video(Path(entry.path), entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue

    def find(self, key: str) -> Video | None:
        """One file as it is now."""
        path = self._folder / key
        try:
            found = path.lstat()
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise SourceUnavailable(
                    f"{self._folder}: a file in it cannot be looked at ({error.strerror})"
                ) from None
            if not self._entries(self._folder):
                raise SourceUnavailable(
                    f"{self._folder} is empty, and was not: mount what belongs there; "
                    "if all of it is gone for good, put any file into it"
                ) from None
            return None
        return self._video(path, found) if stat.S_ISREG(found.st_mode) else None

    def covers(self, video: Video) -> bool:
        """Whether this folder is where a video would be."""
        return video.source == self.name

    def _entries(self, folder: Path) -> Sequence[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder != self._folder and isinstance(error, FileNotFoundError):
                return []  # a subfolder that went away while we looked is simply not there
            which = "cannot be read" if folder == self._folder else "has a folder that cannot be read"
            raise SourceUnavailable(
                f"{self._folder}: the source folder {which} ({error.strerror}); "
                "create it, or set ASR_SOURCE_URL to the folder with your videos"
            ) from None

    def _video(self, path: Path, found: os.stat_result) -> Video:
        return Video(
            source=self.name,
            key=str(path.relative_to(self._folder)),
            version=_version(found),
            size_bytes=found.st_size,
            # Some file systems hold years that no calendar here knows.
            modified_at=datetime.fromtimestamp(min(max(found.st_mtime, 0.0), _YEAR_9999), UTC),
        )

    def link(self, video: Video, content_type: str) -> str | None:
        """There is none to a file."""

    @contextmanager
    def open(self, video: Video) -> Iterator[ByteSource]:
        """The open file; it is looked at again when it is closed, so a change under way is noticed."""
        path = self._folder / video.key
        with self._told(video):
            # A link that took the file's place since the listing could lead anywhere.
            file = LocalFile(path, follow_links=False)
        with file:
            _check(video, file)
            yield _Checked(self._told, video, file)
            _check(video, file)

    @contextmanager
    def _told(self, video: Video) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._folder.is_dir():
                raise SourceUnavailable(f"{self._folder}: the source folder is gone") from error
            raise SourceObjectError(
                Reason.MISSING, f"{video.key}: gone from {self.name} before it could be read"
            ) from error
        except OSError as error:
            raise SourceObjectError(
                Reason.UNREADABLE_OBJECT,
                f"{video.key}: cannot be read ({error.strerror}); check its permissions",
            ) from error


class _Checked:
    """A file whose read errors are this video's and nobody else's."""

    def __init__(
        self, told: Callable[[Video], AbstractContextManager[None]], video: Video, file: LocalFile
    ) -> None:
        self._told, self._video, self._file = told, video, file
        self.size = file.size

    def read_at(self, offset: int, length: int) -> bytes:
        with self._told(self._video):
            return self._file.read_at(offset, length)


def _check(video: Video, file: LocalFile) -> None:
    if _version(file.stat()) != video.version:
        raise SourceObjectError(
            Reason.SUPERSEDED,
            f"{video.key}: changed since it was ingested; the new version is ingested apart",
        )


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
