"""Batches with videos that failed for a reason that may pass: what to try again, and when."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from resources import layout
from resources.ingest_log import IngestLog
from resources.observations import IngestEntry
from resources.published import JsonObject, Status, TranscriptsHead
from resources.store import Store

TRIES = 3
"""How often a batch is tried again without anyone asking."""

FIRST_WAIT = timedelta(minutes=5)
BACK_OFF = 4


class Pending(JsonObject, frozen=True):
    """What one model version could not do in a batch, after ``tries`` that all ended like this."""

    batch: str
    model: str
    tries: int
    ended_at: datetime
    video_ids: tuple[str, ...]

    @property
    def due_at(self) -> datetime | None:
        """When to try again; None once that was done often enough."""
        return self.ended_at + FIRST_WAIT * BACK_OFF ** (self.tries - 1) if self.tries <= TRIES else None


def remember(store: Store, head: TranscriptsHead, now: datetime) -> None:
    """Note what may end otherwise at another time; forget about a batch where nothing may."""
    key = layout.retry(head.batch, head.model)
    failed = tuple(
        o.video_id for o in head.outcomes if o.status is Status.FAILED and o.reason and o.reason.may_pass
    )
    former = Pending.read(store, key)
    if failed:
        tries = former.tries + 1 if former else 1
        pending = Pending(batch=head.batch, model=head.model, tries=tries, ended_at=now, video_ids=failed)
        store.put(key, pending.model_dump_json().encode())
    elif former:
        store.delete(key)


def revive(store: Store, log: IngestLog, entry: IngestEntry) -> None:
    """Videos that are there again: what of their batches failed is tried again from the beginning."""
    for batch in sorted({log.batch_of(video) for video in entry.seen_again}):
        for pending in all_pending(store, batch):
            again = pending.model_copy(update={"tries": 1, "ended_at": entry.observed_at})
            store.put(layout.retry(batch, pending.model), again.model_dump_json().encode())


def all_pending(store: Store, batch: str | None = None) -> Iterator[Pending]:
    """Everything that may be tried again, by batch and model, or in one batch; what was given up as well."""
    folder = layout.retries_of(batch) if batch else layout.RETRIES
    for found in sorted(store.list(folder), key=lambda found: found.key):
        if pending := Pending.read(store, found.key):
            yield pending
