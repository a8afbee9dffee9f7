"""Probe and decode media of unknown origin, in a child process that may die.

The child (:mod:`speech.media_child`) has no credentials in its environment and opens no file of
ours by name: it asks this side for byte ranges of the one video it works on, and writes FLAC to the
one path it is given. So the same code reads a local file and an S3 object, without a temporary copy.
A crash or a hang costs that video only: the child is killed and the next video gets a new one.
"""

import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, isfinite
from multiprocessing.connection import Connection
from pathlib import Path
from socket import SHUT_RDWR, socket, socketpair
from stat import S_ISREG
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from pydantic import BaseModel, TypeAdapter

from speech.errors import AsrError, MediaError, Reason
from speech.types import SAMPLE_RATE, Samples, Seconds
from speech.watchdog import watchdog

STALL_S: Seconds = 60.0
"""A child that says nothing for so long is killed."""
DYING_S: Seconds = 5.0
"""So long is waited for the exit status of a child that has hung up."""
JOB_BASE_S: Seconds = 300.0
JOB_BYTES_PER_S = 1_000_000
"""A child that works longer than ``JOB_BASE_S + size / JOB_BYTES_PER_S`` on one video is killed,
however busy it looks."""
CHILD = ("-m", "speech.confined")
"""What the child runs."""
MAX_AUDIO_S: Seconds = 26 * 3600.0
"""A day of recording fits; a file that claims to hold more is refused."""


class ByteSource(Protocol):
    """One version of one object, readable at any place."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""


class LocalFile:
    """A :class:`ByteSource` over a path; a context manager. Raises OSError for what is no file."""

    def __init__(self, path: str | Path, follow_links: bool = True) -> None:
        # O_NONBLOCK: a pipe would wait for its writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
        self._fd = os.open(path, flags)
        stat = self.stat()
        self.size = stat.st_size
        if not S_ISREG(stat.st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))

    def read_at(self, offset: int, length: int) -> bytes:
        """See :class:`ByteSource`."""
        return os.pread(self._fd, length, offset)

    def stat(self) -> os.stat_result:
        """The open file's state, whatever its name leads to by now."""
        return os.fstat(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a container says of itself.

    ``duration_s`` is None where the container does not say. ``audio_stream`` is the index of the
    stream that is transcribed (FFmpeg's own choice of the best one) out of ``audio_streams``; None
    when there is none. ``audio_start_s`` is where its first packet lies on the video's timeline.
    """

    container: str
    duration_s: Seconds | None
    video_codec: str | None
    audio_codec: str | None
    audio_streams: int
    audio_stream: int | None
    audio_start_s: Seconds | None
    sample_rate: int | None
    channels: int | None


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What decoding found.

    ``duration_s`` is the length of the FLAC, whose first sample stands at 0 of the video's timeline.
    ``decode_errors`` counts packets that gave no audio; ``clock_jumps`` counts places where the
    timestamps made no sense and were bridged. ``lost_share`` is the part of its time for which there is no
    sound though there was before: damaged, gone with the file's end, or never recorded; ``cut_short`` says
    that the file ends before its container says so. ``kbit_per_s`` is what the encoded sound took.
    ``noise_db`` and ``speech_db`` are the levels, below the loudest possible, that a tenth of it and nine
    tenths of it are quieter than: what is heard between words, and words.
    """

    duration_s: Seconds
    decode_errors: int
    clock_jumps: int
    lost_share: float | None = None
    cut_short: bool | None = None
    kbit_per_s: float | None = None
    noise_db: int | None = None
    speech_db: int | None = None


Info = TypeVar("Info", MediaInfo, AudioInfo)
_MEDIA, _AUDIO = TypeAdapter(MediaInfo), TypeAdapter(AudioInfo)


class _Problem(BaseModel):
    """Why there is nothing to tell of a video."""

    reason: Reason
    message: str
    spent: bool = False
    """What this video has taken of the child's memory may not be there for the next."""


def _checked(body: bytes, answer: "TypeAdapter[Info]") -> Info:
    """What a child tells, which hostile media may have taken over. Raises ValueError for what cannot be."""
    info = answer.validate_json(body)
    if not all(map(_fits, asdict(info).values())):
        raise ValueError(info)
    return info


def _fits(value: object) -> bool:
    """Whether JSON and a table's column hold it: else it would break its batch, or the load of that."""
    return isfinite(value) if isinstance(value, float) else not isinstance(value, int) or abs(value) < 1 << 31


def _nonsense(name: str) -> MediaError:
    return MediaError(
        Reason.DECODER_DIED, f"{name}: the decoder gave an answer that makes no sense; upload it again"
    )


class MediaDecoder:
    """A child process for untrusted media: use as a context manager, one thread at a time.

    Errors raised by :meth:`probe` and :meth:`extract`: :class:`~speech.errors.MediaError` with the
    reason; :class:`~speech.errors.AsrError` where the FLAC cannot be written, which is not the video's
    fault; whatever ``source.read_at`` raises passes through.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._allowed_s: Seconds = 0.0

    def probe(self, source: ByteSource, name: str) -> MediaInfo:
        """Open the container and say what is in it; ``name`` is for messages only."""
        return self._work({"do": "probe"}, source, name, _MEDIA)

    def extract(self, source: ByteSource, name: str, flac: Path) -> AudioInfo:
        """Decode the audio to 16 kHz FLAC at ``flac``, mono or stereo, on the video's own timeline.

        Audio that starts late is preceded by silence, gaps in the timestamps are filled, so that a
        sample's position is its time.
        """
        job = {"do": "extract", "flac": str(flac.absolute()), "max_audio_s": MAX_AUDIO_S}
        return self._work(job, source, name, _AUDIO)

    def _work(self, job: dict[str, Any], source: ByteSource, name: str, answer: "TypeAdapter[Info]") -> Info:
        if self._child and self._child.poll() is not None:
            self.close()  # it died between two videos: neither of them did it
        pipe = self._pipe or self._start()
        left_s = JOB_BASE_S + source.size / JOB_BYTES_PER_S
        self._allow(left_s)
        said: bytes | None = json.dumps(job | {"size": source.size}).encode()
        answered = False
        try:
            while True:
                began = time.monotonic()
                kind, body = self._exchange(pipe, name, said, left_s)
                left_s -= time.monotonic() - began  # a slow source is not the decoder's fault
                said = None
                if kind == b"R":
                    offset, length = struct.unpack("<QI", body)
                    if offset >= source.size:
                        raise _nonsense(name)
                    said = source.read_at(offset, min(length, 1 << 24))
                elif kind == b"W":
                    answered = True
                    raise AsrError(f"{name}: {body.decode(errors='replace')}")
                elif kind == b"E":
                    problem = _Problem.model_validate_json(body)
                    answered = not problem.spent
                    raise MediaError(problem.reason, f"{name}: {problem.message}")
                elif kind == b"D":
                    info = _checked(body, answer)
                    answered = True
                    return info
        except (ValueError, struct.error) as error:
            raise _nonsense(name) from error
        finally:
            if not answered:  # the child's state is unknown: never let it touch the next video
                self.close()

    def _exchange(
        self, pipe: Connection, name: str, said: bytes | None, left_s: Seconds
    ) -> tuple[bytes, bytes]:
        """Say something, if there is anything to say, and hear what the child says next, all in good time."""
        patience = min(STALL_S, left_s)
        began = time.monotonic()
        try:
            with watchdog(patience, partial(_hang_up, pipe)):
                if said is not None:
                    pipe.send_bytes(said)
                message = pipe.recv_bytes(1 << 20)
        except (EOFError, OSError) as error:
            if time.monotonic() - began < patience:
                raise self._died(name) from error
            raise MediaError(
                Reason.DECODER_STALLED,
                f"{name}: the decoder made no headway and was stopped; "
                "the file is most likely damaged or made to do harm",
            ) from error
        return message[:1], message[1:]

    def _died(self, name: str) -> MediaError:
        code = None
        if self._child:
            with suppress(subprocess.TimeoutExpired):  # it has hung up and lives on
                code = self._child.wait(DYING_S)
        return MediaError(
            Reason.DECODER_DIED,
            f"{name}: the decoder died of it (exit status {code}); the file is most likely damaged",
        )

    def _start(self) -> Connection:
        ours, theirs = socketpair()
        with theirs:
            self._child = subprocess.Popen(
                # -I: neither the environment nor the working folder can change what is imported.
                [sys.executable, "-I", *CHILD, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # One thread: no array here is large, and each has eight megabytes set apart for it.
                env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
                # A group of its own: it ends with all that it started, and Ctrl-C is not for it.
                start_new_session=True,
            )
        self._allowed_s = 0.0
        self._pipe = Connection(ours.detach())
        return self._pipe

    def _allow(self, seconds: Seconds) -> None:
        """So much more of a processor: it could work on while nobody waits for it, but for a slow source."""
        self._allowed_s += seconds
        if self._child and sys.platform == "linux":
            limit = (ceil(self._allowed_s), resource.RLIM_INFINITY)
            with suppress(OSError, ValueError):  # it has died, or was given less from the start
                resource.prlimit(self._child.pid, resource.RLIMIT_CPU, limit)

    def close(self) -> None:
        """Kill the child, if there is one, and whatever it has started."""
        if self._child:
            with suppress(ProcessLookupError):  # that was nobody
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        if self._pipe:
            self._pipe.close()
        self._child = self._pipe = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hang_up(pipe: Connection) -> None:
    """Whoever waits for it, on either side, is told that it has ended, however many hold the other end."""
    with suppress(OSError), socket(fileno=os.dup(pipe.fileno())) as wire:  # closed in the same moment
        wire.shutdown(SHUT_RDWR)


def flac_pieces(path: Path) -> Iterator[Samples]:
    """The samples of a FLAC that :meth:`MediaDecoder.extract` wrote, piece by piece: ``(n,)``, or ``(2, n)``
    of stereo. Raises :class:`~speech.errors.MediaError` when it is damaged.
    """
    import av

    def damaged(how: str) -> MediaError:
        again = "materialize extracted_audio again"
        return MediaError(Reason.UNDECODABLE_AUDIO, f"{path.name}: this audio is damaged ({how}); {again}")

    try:
        with av.open(path, format="flac") as container:
            stream = container.streams.audio[0]
            channels, count = stream.channels, 0
            for frame in container.decode(stream):
                if frame.pts != count:  # FFmpeg passes over what it cannot read: all behind it would be early
                    raise damaged(f"nothing can be read at {count / SAMPLE_RATE:.1f} s")
                count += frame.samples
                piece = frame.to_ndarray().reshape(-1, channels).astype(np.int16, copy=False).T
                yield piece[0] if channels == 1 else piece
            if not channels or count != (stream.duration or 0):
                raise damaged(f"it ends at {count / SAMPLE_RATE:.1f} s")
    except av.FFmpegError as error:
        raise damaged(str(error.strerror)) from error


def read_flac(path: Path) -> Samples:
    """All of them at once."""
    pieces = list(flac_pieces(path))
    return np.concatenate(pieces, axis=-1) if pieces else np.zeros(0, dtype=np.int16)


def mixed(samples: Samples) -> Samples:
    """Both sides of stereo as one, ``(n,)``; mono as it is."""
    if samples.ndim == 1:
        return samples
    both = np.empty(samples.shape[1], np.int16)
    for first in range(0, len(both), 1 << 20):  # a long recording in 32 bits is long twice
        block = samples[:, first : first + (1 << 20)]
        both[first : first + block.shape[1]] = block.sum(axis=0, dtype=np.int32) // 2
    return both


def duration_of(samples: Samples) -> Seconds:
    """Length in seconds."""
    return float(samples.shape[-1] / SAMPLE_RATE)
