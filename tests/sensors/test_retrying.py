"""When a batch is run again for videos that failed for a passing reason."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, job

from resources.published import Outcome, Status, TranscriptsHead
from resources.retries import TRIES, Pending, all_pending, remember
from resources.store import Store
from sensors.batches import PROCESS_BATCH
from sensors.retrying import due
from speech.errors import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@job(name=PROCESS_BATCH)
def process_batch() -> None:
    """Stands for a run: only its name and partition count."""


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def pending(model: str, minutes_ago: float, tries: int = 1) -> Pending:
    ended = NOW - timedelta(minutes=minutes_ago)
    return Pending(batch="00000007", model=model, tries=tries, ended_at=ended, video_ids=("v",))


@pytest.mark.parametrize(
    ("waiting", "runs"),
    [
        pytest.param([pending("a", 4)], 0, id="not before five minutes"),
        pytest.param([pending("a", 6)], 1, id="then"),
        pytest.param([pending("a", 6), pending("b", 7)], 1, id="once for all models of a batch"),
        pytest.param([pending("a", 6, tries=2)], 0, id="later the second time"),
        pytest.param([pending("a", 9999, tries=TRIES + 1)], 0, id="never when it was tried often enough"),
    ],
)
def test_due(instance: DagsterInstance, waiting: list[Pending], runs: int) -> None:
    asked = list(due(iter(waiting), instance, NOW))
    assert [request.partition_key for request in asked] == ["00000007"] * runs


def test_not_while_a_run_is_at_work_on_it(instance: DagsterInstance) -> None:
    instance.create_run_for_job(process_batch, tags={"dagster/partition": "00000007"})
    assert list(due(iter([pending("a", 6)]), instance, NOW)) == []


def test_a_video_that_has_only_now_failed_has_all_its_tries(store: Store) -> None:
    """Whatever others of its batch have used up."""

    def tries(*video_ids: str) -> int:
        failed = (
            Outcome(video_id=each, status=Status.FAILED, reason=Reason.ENGINE_FAILED) for each in video_ids
        )
        remember(store, TranscriptsHead(model="m", fingerprint="f", batch="1", outcomes=tuple(failed)), NOW)
        (pending,) = all_pending(store)
        return pending.tries

    assert [tries("old") for _ in range(TRIES + 1)] == [1, 2, 3, 4]
    assert [tries("old", "new") for _ in range(3)] == [1, 2, 3]
    assert tries("new") == 4
