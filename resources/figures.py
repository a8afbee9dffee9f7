"""What a load leaves behind, in figures: what waits, what was heard at what cost, how videos ended."""

from pydantic import AwareDatetime, BaseModel

from speech.types import Seconds


class Heard(BaseModel, frozen=True):
    """What a model version has ever heard: seconds of audio, and of work inside the engine."""

    model: str
    audio_s: Seconds
    engine_s: Seconds


class Ended(BaseModel, frozen=True):
    """Current videos that ended alike under a model version: ``outcome`` is a status, or the reason."""

    model: str
    outcome: str
    videos: int


class Figures(BaseModel, frozen=True):
    """The warehouse as a load left it. ``waiting_since`` is when the first of the current videos that have no
    outcome yet was noticed."""

    waiting: int = 0
    waiting_since: AwareDatetime | None = None
    heard: tuple[Heard, ...] = ()
    ended: tuple[Ended, ...] = ()
