"""Which model version hears which video: the champion, whom a rule chose, challengers a share of batches."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from resources.champions import reigning
from resources.models import SpeechModels
from resources.policy import Policy, Rule
from resources.published import ExtractedVideo
from resources.store import Store
from speech.errors import ModelError
from speech.models import ModelVersion


@dataclass(frozen=True, slots=True)
class Routing:
    """The choice, as it is now."""

    champion: str
    models: Sequence[ModelVersion]
    policy: Policy

    @classmethod
    def of(cls, models: SpeechModels, store: Store) -> "Routing":
        """By what the file says, and by who is champion now.

        Raises :class:`~speech.errors.ModelError` for a champion that is switched off: new videos would have
        no words.
        """
        crowned = reigning(store)
        champion = crowned.model if crowned else models.first_champion
        if champion not in {model.name for model in models.enabled}:
            raise ModelError(
                f"{champion} is champion, but switched off in {models.path}: switch it on again (enabled = "
                "true), at least until asr promote has made another one champion"
            )
        return cls(champion, models.enabled, models.policy)

    def takes(self, model: str, batch: str) -> bool:
        """Whether a run of a batch has anything to do for a model version."""
        return (
            model == self.champion
            or self._hears_all(model, batch)
            or any(rule.model == model for rule in self.policy.rules)
        )

    def rule(self, video: ExtractedVideo) -> Rule | None:
        """The first rule that sends the video somewhere; without one it is the champion's."""
        return next((rule for rule in self.policy.rules if rule.matches(video)), None)

    def hears(self, model: str, batch: str, video: ExtractedVideo) -> bool:
        """Whether a model version is to hear a video of a batch."""
        rule = self.rule(video)
        return model == (rule.model if rule else self.champion) or self._hears_all(model, batch)

    def state(self, model: str, batch: str) -> str:
        """A short name of what decides on a batch's videos, by rule; empty without rules.

        Where it is another one than when the batch was published, others may be to be heard, or chosen.
        """
        if not self.policy.rules:
            return ""
        rules = [rule.model_dump(mode="json", exclude={"why"}) for rule in self.policy.rules]
        said = [rules, model == self.champion, self._hears_all(model, batch)]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=8).hexdigest()

    def _hears_all(self, model: str, batch: str) -> bool:
        """Challengers are compared on the same batches, the larger share's ones on more."""
        (share,) = [m.share for m in self.models if m.name == model] or [0.0]
        return model != self.champion and _place(batch) < share


def _place(batch: str) -> float:
    """Where a batch lies in [0, 1), evenly spread.

    >>> 0.4 < sum(_place(f"{number:08d}") < 0.5 for number in range(1000)) / 1000 < 0.6
    True
    """
    return int.from_bytes(hashlib.blake2b(batch.encode(), digest_size=6).digest()) / 2**48
