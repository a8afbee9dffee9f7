"""What waits, what was heard and how videos ended, after a load."""

from pathlib import Path

from asr_assets.measuring import measure
from resources import layout
from resources.figures import Ended, Heard
from resources.ingest_log import IngestLog
from resources.published import Attempt, AttemptsBatch
from resources.store import Store
from resources.warehouse import Warehouse
from tests.resources.published import add_batch, add_videos, load, publish, spoken


def test_a_video_waits_until_it_has_an_outcome_and_not_when_it_is_gone(tmp_path: Path, store: Store) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    path = Path(warehouse.path)
    add_batch(store, "a.mp4", "one two")
    batch, (video_id,) = add_videos(store, "b.mp4")
    add_videos(store, "c.mp4")
    log = IngestLog(store)
    log.catch_up()
    second = log.batch(batch)
    load(warehouse, store)
    figures = measure(path)
    assert (figures.waiting, figures.waiting_since) == (2, second.observed_at)

    publish(store, batch, {video_id: None})  # it failed: that is known, and not waited for
    (gone,) = log.batch("00000003").videos
    log.append([], gone=[gone])
    load(warehouse, store)
    figures = measure(path)
    assert (figures.waiting, figures.waiting_since) == (0, None)
    assert figures.ended == (
        Ended(model="m", outcome="failed", videos=1),
        Ended(model="m", outcome="ok", videos=1),
    )


def test_every_try_that_gave_words_counts_as_heard(tmp_path: Path, store: Store) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    batch, (video_id,) = add_videos(store, "a.mp4")
    publish(store, batch, {video_id: spoken("one two", duration_s=90.0)})
    for run, outcome in (("r1", "ok"), ("r2", "ok"), ("r3", "engine_failed")):
        now = IngestLog(store).batch(batch).observed_at
        attempt = Attempt(
            video_id=video_id,
            run_id=run,
            worker="w",
            started_at=now,
            ended_at=now,
            seconds=4.5,
            outcome=outcome,
        )
        done = AttemptsBatch(model="m", batch=batch, attempts=(attempt,))
        store.put(layout.attempts("m", batch, run), done.model_dump_json().encode())
    load(warehouse, store)
    assert measure(Path(warehouse.path)).heard == (Heard(model="m", audio_s=180.0, engine_s=9.0),)
