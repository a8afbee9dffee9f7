"""Batches with videos that failed for a reason that may pass: what to try again, and when."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from resources import layout
from resources.ingest_log import IngestLog
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
    seen_again: int = 0
    """The newest entry of the ingest log that had one of them be there again, as far as that was noticed."""

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
        # The tries that others have used up are none of a video that has only now failed.
        known = former if former and set(failed).issubset(former.video_ids) else None
        pending = Pending(
            batch=head.batch,
            model=head.model,
            tries=known.tries + 1 if known else 1,
            ended_at=now,
            video_ids=failed,
            seen_again=known.seen_again if known else 0,
        )
        store.put(key, pending.model_dump_json().encode())
    elif former:
        store.delete(key)


def revived(store: Store, log: IngestLog, now: datetime) -> Iterator[Pending]:
    """Everything that may be tried again; from the beginning where a video is there again.

    That follows from the log, whoever wrote the entry and was killed thereafter.
    """
    for pending in all_pending(store):
        number = log.seen_again(pending.video_ids)
        if number > pending.seen_again:
            again = pending.model_copy(update={"tries": 1, "ended_at": now, "seen_again": number})
            store.put(layout.retry(again.batch, again.model), again.model_dump_json().encode())
            yield again
        else:
            yield pending


def all_pending(store: Store, batch: str | None = None) -> Iterator[Pending]:
    """Everything that may be tried again, by batch and model, or in one batch; what was given up as well."""
    folder = layout.retries_of(batch) if batch else layout.RETRIES
    for found in sorted(store.list(folder), key=lambda found: found.key):
        if pending := Pending.read(store, found.key):
            yield pending
