"""``asr failures``: what failed, why, and what is done about it."""

from collections.abc import Iterator
from typing import NamedTuple

import duckdb

from resources.retries import all_pending
from resources.store import Store
from speech.errors import Reason


class Failure(NamedTuple):
    """One current video under one model version."""

    video_key: str
    model: str
    reason: str
    message: str
    again: str


def list_failures(connection: duckdb.DuckDBPyConnection, store: Store) -> Iterator[Failure]:
    """All failures of current videos, by key and model version."""
    plans = {
        (pending.model, video_id): f"{pending.due_at:%Y-%m-%d %H:%M} UTC" if pending.due_at else "given up"
        for pending in all_pending(store)
        for video_id in pending.video_ids
    }
    rows = connection.execute(
        "SELECT video_key, model_version, reason, message, video_id FROM failures "
        "ORDER BY video_key, model_version"
    ).fetchall()
    for key, model, reason, message, video_id in rows:
        never = "asr retry" if Reason(reason).may_pass else "no: it would end the same"
        yield Failure(key, model, reason, message, plans.get((model, video_id), never))
