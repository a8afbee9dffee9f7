"""A watched folder, through the standard library. A video's version is its size and mtime in ns."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from resources.ingest_log import Video
from speech.errors import Reason, SourceObjectError, SourceUnavailable
from speech.media import ByteSource, LocalFile

_log = logging.getLogger(__name__)


class LocalFolder:
    """See :class:`resources.source.SourceBackend`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"file://{folder}"

    def list(self) -> Iterator[Video]:
        """Regular files below the folder; links are not followed out of it."""
        yield from self._walk(self._folder)

    def _walk(self, folder: Path) -> Iterator[Video]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder != self._folder and isinstance(error, FileNotFoundError):
                return  # a subfolder that went away while we looked is simply not there
            raise SourceUnavailable(
                f"{folder}: the source folder cannot be read ({error.strerror}); "
                "create it, or set ASR_SOURCE_URL to the folder with your videos"
            ) from error
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)
            elif entry.is_file(follow_symlinks=False):
                if not _is_text(entry.path):
                    _log.warning("%r: skipped, its name is not UTF-8; rename it", entry.path)
                    continue
                try:
                    yield self._video(path, entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue

    def _video(self, path: Path, stat: os.stat_result) -> Video:
        return Video(
            source=self._name,
            key=str(path.relative_to(self._folder)),
            version=_version(stat),
            size_bytes=stat.st_size,
            modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
        )

    @contextmanager
    def open(self, video: Video) -> Iterator[ByteSource]:
        """The open file; it is checked again when it is closed, so a change under way is noticed."""
        path = self._folder / video.key
        try:
            file = LocalFile(path)
        except FileNotFoundError as error:
            raise SourceObjectError(
                Reason.MISSING, f"{video.key}: gone from {self._name} before it could be read"
            ) from error
        except OSError as error:
            raise SourceUnavailable(f"{path}: cannot be read ({error.strerror})") from error
        with file:
            self._check(video, path)
            yield file
            self._check(video, path)

    def _check(self, video: Video, path: Path) -> None:
        try:
            now = _version(path.stat())
        except FileNotFoundError:
            now = "nothing"
        if now != video.version:
            raise SourceObjectError(
                Reason.SUPERSEDED,
                f"{video.key}: changed since it was ingested; the new version is ingested apart",
            )


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
