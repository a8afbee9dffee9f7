"""Who is right where two model versions differ, by somebody who has listened.

One object a place: who judges it again replaces it. The next comparison of the two takes it in.
"""

import hashlib
from datetime import UTC, datetime

from pydantic import Field

from resources import layout
from resources.comparisons import Pair
from resources.published import JsonObject
from resources.source import ask_each
from resources.store import Store, StoredObject
from speech.comparing import Place
from speech.types import Seconds


class Verdict(JsonObject, frozen=True):
    """What is truly said at one place of one video, where these models heard otherwise.

    ``said`` is empty where nobody says anything.
    """

    video_id: str
    start_s: Seconds
    heard: dict[str, str]
    """By model version: its words at that place, as they are compared."""
    said: str
    who: str
    judged_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def place(self, pair: Pair) -> Place:
        """The place, as A's and B's."""
        return Place(self.start_s, self.heard[pair.a], self.heard[pair.b])


def judge(store: Store, batch: str, verdict: Verdict) -> None:
    """Keep a verdict, in place of a former one about the same place."""
    words = "|".join(f"{model}:{verdict.heard[model]}" for model in sorted(verdict.heard))
    place = hashlib.blake2b(f"{verdict.start_s:.3f}|{words}".encode(), digest_size=8).hexdigest()
    folder = layout.verdicts_on(_folder(Pair(*verdict.heard), batch), verdict.video_id)
    store.put(f"{folder}/{place}.json", verdict.model_dump_json().encode())


def verdicts_of(store: Store, pair: Pair, batch: str, video_id: str | None = None) -> list[Verdict]:
    """Those on a batch, or on one of its videos; the newest first."""
    folder = _folder(pair, batch)
    folder = layout.verdicts_on(folder, video_id) if video_id else folder
    found = ask_each(lambda there: Verdict.read(store, there.key), list(store.list(folder)))
    return sorted((verdict for verdict in found if verdict), key=lambda v: v.judged_at, reverse=True)


def verdict_objects(store: Store, pair: Pair) -> list[StoredObject]:
    """All that is kept about two model versions."""
    return list(store.list(layout.verdicts(*sorted(pair))))


def _folder(pair: Pair, batch: str) -> str:
    first, second = sorted(pair)
    return layout.verdicts_in(first, second, batch)
