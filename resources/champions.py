"""Who is champion: an append-only log in the store, so that a rebuilt warehouse knows it too."""

from datetime import UTC, datetime

from resources import layout
from resources.numbered_log import Entry, NumberedLog
from resources.store import Store


class Champion(Entry, frozen=True):
    """From ``since`` on, this model version's words are the current ones."""

    model: str
    since: datetime
    why: str


def champion_log(store: Store) -> NumberedLog[Champion]:
    """The log, unread."""
    return NumberedLog(store, layout.CHAMPIONS, Champion)


def crown_first(store: Store, model: str) -> None:
    """Make a model version the first champion; nothing happens when there was ever one before.

    It has to have words: one whose weights never came would leave everybody without any, for good.
    """
    log = champion_log(store)

    def decide(number: int) -> Champion | None:
        if number > 1 or not any(store.list(layout.transcripts_of(model))):
            return None
        return Champion(number=number, model=model, since=datetime.now(UTC), why="first champion")

    log.append(decide)
