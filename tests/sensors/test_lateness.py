"""Words are late when a video waits too long, and for nothing else."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster import AssetCheckKey, AssetKey, AssetMaterialization, DagsterInstance, build_sensor_context

from resources.figures import Figures
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.store import Store
from sensors.following import INGESTED_THROUGH
from sensors.lateness import FIGURES, evaluation, last_said, lateness_sensor, waiting_since

WORDS = AssetKey("word_timings")
CHECK = AssetCheckKey(WORDS, "words_on_time")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def notice(store: Store, key: str) -> datetime:
    video = Video(source="s3://b", key=key, version="1", size_bytes=1, modified_at=NOW)
    entry = IngestLog(store).append([video])
    assert entry is not None
    return entry.observed_at


def load(instance: DagsterInstance, through: int, since: datetime | None) -> None:
    """What word_timings says of a load."""
    figures = Figures(waiting=bool(since), waiting_since=since).model_dump(mode="json")
    instance.report_runless_asset_event(
        AssetMaterialization(WORDS, metadata={INGESTED_THROUGH: through, FIGURES: figures})
    )


def test_the_video_that_waits_longest_is_in_the_last_load_or_after_it(
    instance: DagsterInstance, store: Store
) -> None:
    assert waiting_since(instance, store, WORDS) is None
    first = notice(store, "a.mp4")
    assert waiting_since(instance, store, WORDS) == first
    load(instance, 1, since=first)
    assert waiting_since(instance, store, WORDS) == first
    load(instance, 1, since=None)
    assert waiting_since(instance, store, WORDS) is None
    # Loads fail from here on: what comes next waits, however long nobody says so.
    second = notice(store, "b.mp4")
    notice(store, "c.mp4")
    assert waiting_since(instance, store, WORDS) == second


def test_a_load_of_an_earlier_release_has_no_figures(instance: DagsterInstance, store: Store) -> None:
    notice(store, "a.mp4")
    instance.report_runless_asset_event(AssetMaterialization(WORDS, metadata={INGESTED_THROUGH: 1}))
    assert waiting_since(instance, store, WORDS) is None


@pytest.mark.parametrize(
    ("waited", "passed"), [(None, True), (timedelta(minutes=59), True), (timedelta(minutes=61), False)]
)
def test_late_is_longer_than_the_promise(waited: timedelta | None, passed: bool) -> None:
    found = evaluation(CHECK, NOW - waited if waited else None, 3600, NOW)
    assert found.passed is passed
    assert "60 minutes" in (found.description or "")


def test_the_sensor_tells_dagster_when_the_state_changes(instance: DagsterInstance, store: Store) -> None:
    def tick(within_s: float) -> tuple[int, str]:
        sensor = lateness_sensor(CHECK, within_s)
        with build_sensor_context(instance, resources={"store": store}) as context:
            data = sensor.evaluate_tick(context)
        for event in data.asset_events:
            instance.report_runless_asset_event(event)  # as the daemon does
        return len(data.asset_events), data.skip_message or ""

    assert last_said(instance, CHECK) is None
    assert tick(60) == (1, "no video waits longer than 1 minutes for its words")
    assert last_said(instance, CHECK) is True
    assert tick(60)[0] == 0
    notice(store, "a.mp4")
    changes, said = tick(0)
    assert changes == 1
    assert "look at failed runs" in said
    assert last_said(instance, CHECK) is False
    assert tick(0)[0] == 0
    load(instance, 1, since=None)
    assert tick(0)[0] == 1
    assert last_said(instance, CHECK) is True
