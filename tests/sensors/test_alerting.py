"""What failed for good is told once to a hook, and that it is over; a hook that refuses loses nothing."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    DagsterInstance,
    Definitions,
    MaterializeResult,
    asset,
    build_sensor_context,
    job,
    materialize,
)

from resources.alerts import AlertHook, AlertRefused
from sensors.alerting import (
    CHECKS_PER_PAGE,
    NAMED,
    Memory,
    Problem,
    _evaluations,
    alerting_sensor,
    look,
    message,
    tell,
)
from sensors.batches import BATCHES, PROCESS_BATCH
from tests.listener import Listener, listening

SECRET = "/T0/very-secret"
CHECK = AssetCheckKey(AssetKey("word_timings"), "words_on_time")
NAMED_CHECK = "words_on_time of word_timings"


@job(name=PROCESS_BATCH)
def process_batch() -> None:
    """Stands for a run: only its name and partition count."""


@job
def by_hand() -> None:
    """Somebody's own."""


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AlertHook.post.retry, "wait", lambda _: 0)


def fail(instance: DagsterInstance, batch: str, of: object = process_batch) -> str:
    run = instance.create_run_for_job(of, tags={"dagster/partition": batch} if batch else {})  # type: ignore[arg-type]
    instance.report_run_failed(run)
    return run.run_id


def succeed(instance: DagsterInstance, batch: str) -> None:
    process_batch.execute_in_process(instance=instance, tags={"dagster/partition": batch})


def check(instance: DagsterInstance, passed: bool) -> None:
    instance.report_runless_asset_event(
        AssetCheckEvaluation(
            asset_key=CHECK.asset_key, check_name=CHECK.name, passed=passed, description="it is late"
        )
    )


def after(memory: Memory, instance: DagsterInstance, hook: Listener) -> list[str]:
    """The texts that one more tick brings about."""
    before = len(hook.taken)
    look(instance, [CHECK], memory)
    tell(memory, AlertHook(url=hook.url + SECRET))
    return [json.loads(body)["text"] for _, body in hook.taken[before:]]


def test_a_batch_that_is_tried_again_is_no_alert_and_its_last_failure_is_one(
    instance: DagsterInstance,
) -> None:
    memory = Memory()
    with listening() as hook:
        for _ in range(2):
            fail(instance, "00000001")
            assert after(memory, instance, hook) == []
        third = fail(instance, "00000001")
        (text,) = after(memory, instance, hook)
        assert text == "process_batch failed 3 times in a row (batch 00000001): its process was ended"
        told = json.loads(hook.taken[-1][1])
        assert (told["job"], told["batches"], told["state"]) == (PROCESS_BATCH, ["00000001"], "failed")
        assert told["run_ids"] == [third]
        fail(instance, "00000001")
        assert after(memory, instance, hook) == []
        succeed(instance, "00000001")
        (text,) = after(memory, instance, hook)
        assert text.startswith("over: process_batch failed 3 times in a row (batch 00000001)")
        assert memory.problems == {}


def test_one_message_for_all_batches_that_failed_alike(instance: DagsterInstance) -> None:
    with listening() as hook:
        for batch in ("00000001", "00000002"):
            for _ in range(3):
                fail(instance, batch)
        (text,) = after(Memory(), instance, hook)
    assert "(batch 00000001, 00000002)" in text
    many = [Problem(headline="h", sentence="s", batch=f"{n:08d}") for n in range(NAMED + 5)]
    assert "and 5 more" in message(many)["text"]


def test_what_nobody_starts_again_is_told_at_once_and_forgotten(instance: DagsterInstance) -> None:
    memory = Memory()
    fail(instance, "", by_hand)
    with listening() as hook:
        assert after(memory, instance, hook) == ["by_hand failed: its process was ended"]
    assert memory.problems == {}


def test_a_check_that_fails_is_told_until_it_passes(instance: DagsterInstance) -> None:
    memory = Memory()
    with listening() as hook:
        assert after(memory, instance, hook) == []
        check(instance, passed=False)
        assert after(memory, instance, hook) == [f"check {NAMED_CHECK} failed (ERROR): it is late"]
        check(instance, passed=False)
        assert after(memory, instance, hook) == []
        check(instance, passed=True)
        assert after(memory, instance, hook) == [f"over: check {NAMED_CHECK} failed (ERROR): it is late"]
        # What failed and passed between two ticks needs nobody.
        check(instance, passed=False)
        check(instance, passed=True)
        assert after(memory, instance, hook) == []


def test_no_evaluation_is_too_many_and_none_that_ends_late_is_passed_over(instance: DagsterInstance) -> None:
    of_batch = AssetCheckSpec(CHECK.name, asset=CHECK.asset_key)
    again, told = CHECKS_PER_PAGE + 1, []

    @asset(name="word_timings", partitions_def=BATCHES, check_specs=[of_batch])
    def words(context: AssetExecutionContext) -> MaterializeResult:  # type: ignore[type-arg]
        if context.partition_key == "00000002":  # while it is at work, the others have all been seen
            for _ in range(again):
                check(instance, passed=True)
            told.append(after(memory, instance, hook))
        return MaterializeResult(check_results=[AssetCheckResult(check_name=CHECK.name, passed=False)])

    memory = Memory()
    instance.add_dynamic_partitions("batch", ["00000001", "00000002"])
    with listening() as hook:
        after(memory, instance, hook)
        materialize([words], instance=instance, partition_key="00000001")
        for _ in range(again):
            check(instance, passed=True)
        failed = f"check {NAMED_CHECK} failed (ERROR) (batch %s): something offending"
        assert after(memory, instance, hook) == [failed % "00000001"]
        materialize([words], instance=instance, partition_key="00000002")
        assert after(memory, instance, hook) == [failed % "00000002"]
        assert told == [[]]
        assert after(memory, instance, hook) == []
        assert len(_evaluations(instance, CHECK, memory)) == 0


def test_another_batch_that_passes_a_check_does_not_make_up_for_the_first(instance: DagsterInstance) -> None:
    of_batch = AssetCheckSpec(CHECK.name, asset=CHECK.asset_key)

    @asset(name="word_timings", partitions_def=BATCHES, check_specs=[of_batch])
    def words(context: AssetExecutionContext) -> MaterializeResult:  # type: ignore[type-arg]
        passed = context.partition_key != bad
        return MaterializeResult(check_results=[AssetCheckResult(check_name=CHECK.name, passed=passed)])

    memory, bad = Memory(), "00000001"
    instance.add_dynamic_partitions("batch", ["00000001", "00000002"])
    with listening() as hook:
        for batch in ("00000001", "00000002"):
            materialize([words], instance=instance, partition_key=batch)
        assert after(memory, instance, hook) == [
            f"check {NAMED_CHECK} failed (ERROR) (batch 00000001): something offending"
        ]
        bad = ""
        materialize([words], instance=instance, partition_key="00000001")
        assert after(memory, instance, hook)[0].startswith("over: ")


@pytest.mark.parametrize("manners", [[500] * 3, [404] * 3, [302] * 3])
def test_a_hook_that_refuses_is_said_and_asked_again_by_the_next_tick(
    instance: DagsterInstance, manners: list[int]
) -> None:
    fail(instance, "", by_hand)
    sensor, repository = alerting_sensor(), Definitions().get_repository_def()
    with listening(*manners) as hook:
        resources = {"alert_hook": AlertHook(url=hook.url + SECRET)}
        with build_sensor_context(instance, resources=resources, repository_def=repository) as context:
            refused = sensor.evaluate_tick(context)
        assert refused.skip_message
        assert f"HTTP {manners[0]}" in refused.skip_message
        assert "wait for the next tick: 1" in refused.skip_message
        assert SECRET not in refused.skip_message
        assert hook.asked == 3
        with build_sensor_context(
            instance, refused.cursor, resources=resources, repository_def=repository
        ) as context:
            taken = sensor.evaluate_tick(context)
        assert taken.skip_message == "messages told: 1"
        assert [path for path, _ in hook.taken] == [SECRET]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/T0/very-secret", "hooks.example/T0/very-secret"])
def test_a_hook_that_is_not_there_gives_nothing_away(url: str) -> None:
    with pytest.raises(AlertRefused) as refused:
        AlertHook(url=url).post({"text": "x"})
    from dagster._utils.error import serializable_error_info_from_exc_info

    error = refused.value
    assert error.__traceback__
    kept = serializable_error_info_from_exc_info((type(error), error, error.__traceback__))
    assert "very-secret" not in str(kept)
    assert "ASR_ALERT_URL" in str(error)


def test_a_hook_that_never_ends_what_it_says_holds_nobody() -> None:
    class Dripping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                if over.wait(0.25):
                    return
                with suppress(OSError):
                    self.wfile.write(b"x")

        def log_message(self, *_: object) -> None:
            pass

    over, began = threading.Event(), time.monotonic()
    with ThreadingHTTPServer(("127.0.0.1", 0), Dripping) as hook:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        AlertHook(url=f"http://127.0.0.1:{hook.server_port}").post({"text": "x"})
        took_s = time.monotonic() - began
        over.set()
        hook.shutdown()
    assert took_s < 5


def test_the_hook_is_defined_only_where_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_assets.definitions import build
    from resources.settings import Settings

    def names() -> set[str]:
        return {sensor.name for sensor in build(Settings.from_env()).get_repository_def().sensor_defs}

    monkeypatch.delitem(os.environ, "ASR_ALERT_URL", raising=False)
    assert "alerts" not in names()
    monkeypatch.setenv("ASR_ALERT_URL", "https://hooks.example" + SECRET)
    assert "alerts" in names()
    assert SECRET not in repr(Settings.from_env())
