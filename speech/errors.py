"""Every error the platform raises on purpose, and every reason a video can end with.

::

    AsrError                  str() is one sentence: what happened, to what, and what to do
    ├── VideoError            one video cannot be processed; carries a Reason; its batch goes on
    │   ├── MediaError        its bytes cannot become audio
    │   ├── SourceObjectError it is gone from the source, or it is no longer that version
    │   └── EngineError       the engine could not transcribe it
    ├── WorkerBroken          a process that transcribes cannot go on; another takes its place
    ├── ModelError            a model version is unknown, badly written or cannot be loaded
    ├── SourceUnavailable     the source as a whole cannot be read: nothing is concluded from it. Names no
    │                         video: what fails a step or a tick is kept in Dagster's database
    ├── StoreError            the store refused, or holds something it should not
    ├── NothingInCommon       two model versions have heard no video that both are to be compared on
    └── WarehouseError        the DuckDB file is busy or missing
        └── QueryError        the SQL of a reader is refused or wrong
"""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class Reason(StrEnum):
    """Why a video has no words, or not the words one would expect. Stored in SQL as it stands."""

    NO_AUDIO = "no_audio"
    """The video has no audio stream. Not a failure."""
    NO_SPEECH = "no_speech"
    """There is audio, but nobody speaks in it. Not a failure."""
    UNREADABLE_MEDIA = "unreadable_media"
    """No allowed container could be recognised, or it is damaged beyond opening."""
    UNDECODABLE_AUDIO = "undecodable_audio"
    """The container opens, but its audio stream gives (nearly) no samples."""
    TOO_LONG = "too_long"
    """More audio than the decoder is allowed to write."""
    DECODER_DIED = "decoder_died"
    """The decoding process crashed or was killed while it worked on this video."""
    DECODER_STALLED = "decoder_stalled"
    """The decoding process gave no sign of life and was killed."""
    MISSING = "missing"
    """The object was gone from the source before it could be read."""
    UNREADABLE_OBJECT = "unreadable_object"
    """The source refuses this object alone: archived, forbidden, on a bad disk."""
    SUPERSEDED = "superseded"
    """The object has other bytes now; the new version is a video of its own."""
    ANOTHER_MODEL = "another_model"
    """A rule, or the champion, has another model version hear it. Not a failure."""
    ENGINE_FAILED = "engine_failed"
    """The engine raised an error on this video's audio."""

    @property
    def may_pass(self) -> bool:
        """Whether another try, at another time, may end otherwise."""
        return self in {
            Reason.MISSING,
            Reason.SUPERSEDED,  # the old bytes may come back
            Reason.UNREADABLE_OBJECT,
            Reason.DECODER_DIED,
            Reason.DECODER_STALLED,
            Reason.ENGINE_FAILED,
        }


class AsrError(Exception):
    """Base of all errors raised on purpose; ``str()`` is a sentence for the user."""


class VideoError(AsrError):
    """One video cannot be processed. The rest of its batch goes on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MediaError(VideoError):
    """The bytes of a video cannot become audio."""


class SourceObjectError(VideoError):
    """The object is gone from the source, or it is no longer the version that was asked for."""


class EngineError(VideoError):
    """The engine could not transcribe this video's audio."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.ENGINE_FAILED, message)


class WorkerBroken(AsrError):
    """A worker process cannot go on: its device failed, it died or stalled. It is replaced by another."""


class ModelError(AsrError):
    """A model version is unknown, badly written or cannot be loaded."""


class SourceUnavailable(AsrError):
    """The source as a whole cannot be read. A failed read is not an empty listing."""


class StoreError(AsrError):
    """The store refused an operation, or holds something that it should not."""


class NothingInCommon(AsrError):
    """Two model versions have heard no current video that both could be compared on."""


class WarehouseError(AsrError):
    """The DuckDB file is busy, missing or of another version."""


class QueryError(WarehouseError):
    """A reader's SQL is wrong, or asks for what the sandbox forbids."""


def first_line(error: BaseException) -> str:
    """What another library's error says, for a sentence of our own; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def what_is_wrong(error: "ValidationError") -> str:
    """The first few wrong settings, each with what is wrong with it."""
    problems = ((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()[:3])
    return "; ".join(f"{place}: {message}" if place else message for place, message in problems)
