"""Who is champion: an append-only log in the store, so that a rebuilt warehouse knows it too."""

from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from resources import layout
from resources.numbered_log import Entry, NumberedLog
from resources.store import Store
from speech.errors import AsrError


class Change(StrEnum):
    """How somebody became champion."""

    FIRST = "first champion"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"


class Champion(Entry, frozen=True):
    """From ``since`` on, this model version's words are current; ``fingerprint`` is of its definition."""

    model: str
    why: Change
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    who: str | None = None
    fingerprint: str | None = None
    evidence: dict[str, Any] | None = None


def champion_log(store: Store) -> NumberedLog[Champion]:
    """The log, unread."""
    return NumberedLog(store, layout.CHAMPIONS, Champion)


def reigning(store: Store) -> Champion | None:
    """The champion; None before the first."""
    return next(reversed(_reigns(list(champion_log(store).read_on()))), None)


def _reigns(entries: list[Champion]) -> list[Champion]:
    """Who came after whom, the last one being champion; what was rolled back is not among them."""
    reigns: list[Champion] = []
    for entry in entries:
        if entry.why is Change.ROLLED_BACK:
            reigns.pop()
            reigns[-1] = entry
        else:
            reigns.append(entry)
    return reigns


def crown_first(store: Store, model: str, fingerprint: str) -> None:
    """Make a model version the first champion; nothing happens when there was ever one before.

    It has to have words: one whose weights never came would leave everybody without any, for good.
    """

    def decide(number: int) -> Champion | None:
        if number > 1 or not any(store.list(layout.transcripts_of(model))):
            return None
        return Champion(number=number, model=model, why=Change.FIRST, fingerprint=fingerprint)

    champion_log(store).append(decide)


def promote(
    store: Store, model: str, over: Champion, who: str, fingerprint: str, evidence: dict[str, Any]
) -> Champion:
    """Make a model version champion. Raises AsrError when ``over`` is not champion any more."""
    entry = Champion(
        number=over.number + 1,
        model=model,
        why=Change.PROMOTED,
        who=who,
        fingerprint=fingerprint,
        evidence=evidence,
    )
    return _append(store, entry)


def roll_back(store: Store, who: str, models: Collection[str]) -> Champion:
    """Make the former champion champion again. Raises AsrError when there was none of these models."""
    reigns = _reigns(list(champion_log(store).read_on()))
    if len(reigns) < 2:
        there_is = f"{reigns[0].model} is the first champion" if reigns else "there is no champion yet"
        raise AsrError(f"{there_is}: nobody was before, so there is nothing to go back to")
    before, over = reigns[-2:]
    if before.model not in models:
        raise AsrError(
            f"{before.model} was champion before, but is switched off in models.toml: switch it on"
        )
    again = {"why": Change.ROLLED_BACK, "who": who, "since": datetime.now(UTC), "evidence": None}
    return _append(store, before.model_copy(update=again | {"number": over.number + 1}))


def _append(store: Store, entry: Champion) -> Champion:
    """What was decided in knowledge of the entry before it, and of no later one."""

    def decide(number: int) -> Champion:
        if number != entry.number:
            raise AsrError(
                "somebody else has just changed who is champion: look at asr models, and ask again"
            )
        return entry

    champion_log(store).append(decide)
    return entry
