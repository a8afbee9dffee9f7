"""The team's decisions about model versions: the tables ``[policy]`` of ``models.toml``.

What an hour of a worker costs, what a challenger has to show before it becomes champion, and which videos
are sent to which model version.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from resources.published import ExtractedVideo
from speech.errors import ModelError, what_is_wrong
from speech.models import POLICY
from speech.types import Seconds

Confidence = Annotated[float, Field(gt=0.5, lt=1)]


class _Said(BaseModel, frozen=True):
    model_config = ConfigDict(extra="forbid")


class Gate(_Said, frozen=True):
    """What a challenger must not fall short of.

    Its WER is at most ``margin`` (a fraction) above the champion's, with ``confidence``: that is where the
    upper end of the interval lies. It takes at most ``slower`` times as long for an hour of audio, and its
    words' starts lie at most ``later_ms`` further off, in the median. Fewer ``videos`` with references than
    that are no evidence.
    """

    margin: Annotated[float, Field(ge=0, le=1)] = 0.005
    confidence: Confidence = 0.95
    slower: PositiveFloat = 2.0
    later_ms: NonNegativeFloat = 20.0
    videos: PositiveInt = 20

    def asked(self, margin: float | None, confidence: float | None) -> "Gate":
        """With another margin or confidence. Raises ModelError for what cannot be."""
        said = {"margin": margin, "confidence": confidence}
        try:
            return Gate(
                **self.model_dump() | {name: value for name, value in said.items() if value is not None}
            )
        except ValidationError as error:
            raise ModelError(f"the gate cannot be asked for that: {what_is_wrong(error)}") from error


class Rule(_Said, frozen=True):
    """Sends videos to a model version; all that it says has to be so."""

    name: str
    model: str
    why: Literal["price", "speed", "accuracy"] | None = None
    language: tuple[str, ...] = ()
    """One of these is what the sidecar says."""
    tier: tuple[str, ...] = ()
    """One of these is the ``tier`` of the sidecar's metadata."""
    channels: PositiveInt | None = None
    longer_than_s: Seconds | None = None
    shorter_than_s: Seconds | None = None

    def matches(self, video: ExtractedVideo) -> bool:
        """Whether it sends this video."""
        length, channels = video.duration_s, video.media.channels if video.media else None
        return (
            (not self.language or video.sidecar.language in self.language)
            and (not self.tier or str(video.sidecar.said.get("tier")) in self.tier)
            and (self.channels is None or channels == self.channels)
            and (self.longer_than_s is None or (length is not None and length > self.longer_than_s))
            and (self.shorter_than_s is None or (length is not None and length < self.shorter_than_s))
        )


class Policy(_Said, frozen=True):
    """All of it. ``prices`` are of an hour of one worker, by the name of its device."""

    prices: Mapping[str, NonNegativeFloat] = {}
    gate: Gate = Gate()
    rules: tuple[Rule, ...] = ()

    @classmethod
    def read(cls, path: str | Path, models: set[str]) -> "Policy":
        """From the file of model versions, of which ``models`` are switched on.

        Raises :class:`~speech.errors.ModelError` for what cannot be, and for a rule whose model is off.
        """
        try:
            policy = cls.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")).get(POLICY, {}))
        except ValidationError as error:
            raise ModelError(f"{path}: [{POLICY}] is wrong: {what_is_wrong(error)}") from error
        names = [rule.name for rule in policy.rules]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ModelError(
                f"{path}: two rules are called {min(twice)!r}: which one chose could not be told"
            )
        for rule in policy.rules:
            if rule.model_fields_set <= {"name", "model", "why"}:
                raise ModelError(
                    f"{path}: rule {rule.name!r} would send every video to {rule.model}: say which, or let "
                    "asr promote make it champion"
                )
            if rule.model not in models:
                raise ModelError(
                    f"{path}: rule {rule.name!r} sends videos to {rule.model!r}, which is not switched on; "
                    f"these are: {', '.join(sorted(models))}"
                )
        return policy
