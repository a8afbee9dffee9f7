"""The alert sensor: what has failed for good, and what is all right again, told once each to a web hook.

Not Dagster's own run failure sensor: that one moves on whatever became of its message, so an alert is lost
with the hook's first error. This one remembers what is wrong and whom it has told.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    EventLogRecord,
    RunsFilter,
    RunStatusChangeRecordsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from pydantic import BaseModel, Field

from resources.alerts import AlertHook, AlertRefused
from sensors.batches import COMPARE_MODELS, COPY_WORDS, LOAD_WORDS, PARTITION_TAG, PROCESS_BATCH, RECONCILE
from sensors.sentences import why_it_failed
from speech.types import Seconds

TRIED_AGAIN = (PROCESS_BATCH, LOAD_WORDS, COMPARE_MODELS, COPY_WORDS, RECONCILE)
"""Jobs that sensors and the schedule start again by themselves; who starts another has to hear of its first
failure."""

TOLD_AFTER = 3
"""Failures in a row. A batch is tried for hours yet, and what comes of that is told, too."""

FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
UNFINISHED = [status for status in DagsterRunStatus if status not in FINISHED]
PLANNED = AssetCheckExecutionRecordStatus.PLANNED
RUNS_PER_TICK = 200
CHECKS_PER_PAGE = 50
NAMED = 20
"""Batches that one message names."""

TICK_S: Seconds = 30.0


class Problem(BaseModel):
    """What is wrong with a ``job`` (of a ``batch``) or a ``check``; ``over`` once it was put right."""

    headline: str
    sentence: str
    job: str = ""
    check: str = ""
    batch: str = ""
    run_id: str = ""
    told: bool = False
    over: bool = False


class Memory(BaseModel):
    """The sensor's cursor: up to where the event log has been read (ends of runs; evaluations, by check), and
    what is wrong."""

    failures_through: int = 0
    successes_through: int | None = None
    checks_through: dict[str, int] = Field(default_factory=dict)
    problems: dict[str, Problem] = Field(default_factory=dict)


def alerting_sensor(interval_s: int = 30) -> SensorDefinition:
    """The sensor."""

    @sensor(
        name="alerts",
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Tells the hook in ASR_ALERT_URL what failed for good, and what is all right again.",
    )
    def alerts(context: SensorEvaluationContext, alert_hook: AlertHook) -> SkipReason:
        memory = Memory.model_validate_json(context.cursor) if context.cursor else Memory()
        assert context.repository_def
        look(context.instance, context.repository_def.asset_graph.asset_check_keys, memory)
        try:
            said = f"messages told: {tell(memory, alert_hook)}"
        except AlertRefused as error:
            waiting = sum(problem.told is problem.over for problem in memory.problems.values())
            said = f"{error}; alerts that wait for the next tick: {waiting}"
            context.log.warning(said)
        context.update_cursor(memory.model_dump_json(exclude_defaults=True))
        return SkipReason(said)

    return alerts


def look(instance: DagsterInstance, checks: Iterable[AssetCheckKey], memory: Memory) -> None:
    """Take in what has happened since the last look."""
    over = {_key(run) for run in _ended_well(instance, memory)}
    for key in over & memory.problems.keys():
        memory.problems[key].over = True
    for key, problem in chain(_failed_runs(instance, memory), _failed_checks(instance, checks, memory)):
        memory.problems.setdefault(key, problem).over = False
    # What nobody has heard of need not be taken back.
    memory.problems = {key: p for key, p in memory.problems.items() if p.told or not p.over}


def tell(memory: Memory, hook: AlertHook) -> int:
    """Deliver what nobody has heard yet; how many messages that took. Raises AlertRefused for the first that
    is refused; it and the rest stay in ``memory``."""
    until = time.monotonic() + TICK_S
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for key, problem in memory.problems.items():
        if problem.told is problem.over:
            groups.setdefault((problem.over, problem.headline, problem.sentence), []).append(key)
    told = 0
    for keys in groups.values():
        if time.monotonic() > until:
            break
        hook.post(message([memory.problems[key] for key in keys]))
        told += 1
        for key in keys:
            problem = memory.problems[key]
            problem.told = True
            if problem.over or not (problem.check or problem.job in TRIED_AGAIN):
                del memory.problems[key]
    return told


def message(alike: list[Problem]) -> dict[str, Any]:
    """One message for problems of one kind: a full disk fails a hundred batches."""
    first = alike[0]
    batches = sorted(problem.batch for problem in alike if problem.batch)
    more = f" and {len(batches) - NAMED} more" if len(batches) > NAMED else ""
    about = f" (batch {', '.join(batches[:NAMED])}{more})" if batches else ""
    return {
        "text": f"{'over: ' if first.over else ''}{first.headline}{about}: {first.sentence}",
        "state": "over" if first.over else "failed",
        "job": first.job,
        "check": first.check,
        "batches": batches,
        "run_ids": [problem.run_id for problem in alike if problem.run_id],
        "sentence": first.sentence,
    }


def _ended_well(instance: DagsterInstance, memory: Memory) -> list[DagsterRun]:
    """Runs that succeeded since the last look."""
    if memory.successes_through is None:  # whoever succeeded before has not failed for good by now
        newest = instance.fetch_run_status_changes(DagsterEventType.RUN_SUCCESS, 1).records
        memory.successes_through = newest[0].storage_id if newest else 0
    since = RunStatusChangeRecordsFilter(
        DagsterEventType.RUN_SUCCESS, after_storage_id=memory.successes_through
    )
    records = instance.fetch_run_status_changes(since, RUNS_PER_TICK, ascending=True).records
    memory.successes_through = records[-1].storage_id if records else memory.successes_through
    return _runs(instance, records)


def _failed_runs(instance: DagsterInstance, memory: Memory) -> Iterator[tuple[str, Problem]]:
    """Runs that failed since the last look and that nothing starts again, each with its key."""
    since = RunStatusChangeRecordsFilter(
        DagsterEventType.RUN_FAILURE, after_storage_id=memory.failures_through
    )
    records = instance.fetch_run_status_changes(since, RUNS_PER_TICK, ascending=True).records
    memory.failures_through = records[-1].storage_id if records else memory.failures_through
    for run in _runs(instance, records):
        if headline := _final(instance, run):
            yield (
                _key(run),
                Problem(
                    headline=headline,
                    sentence=why_it_failed(instance, run.run_id),
                    job=run.job_name,
                    batch=run.tags.get(PARTITION_TAG, ""),
                    run_id=run.run_id,
                ),
            )


def _runs(instance: DagsterInstance, records: Sequence[EventLogRecord]) -> list[DagsterRun]:
    run_ids = [record.run_id for record in records]
    return list(instance.get_runs(RunsFilter(run_ids=run_ids))) if run_ids else []


def _key(run: DagsterRun) -> str:
    """By what a run's problem is known: what is tried again is one however many runs it takes."""
    return f"{run.job_name} {run.tags.get(PARTITION_TAG, '')}" if run.job_name in TRIED_AGAIN else run.run_id


def _final(instance: DagsterInstance, run: DagsterRun) -> str | None:
    if run.job_name not in TRIED_AGAIN:
        return f"{run.job_name} failed"
    batch = run.tags.get(PARTITION_TAG)
    same = RunsFilter(
        job_name=run.job_name, tags={PARTITION_TAG: batch} if batch else None, statuses=FINISHED
    )
    ends = [newest.status for newest in instance.get_runs(same, limit=TOLD_AFTER)]
    failed_each_time = ends == [DagsterRunStatus.FAILURE] * TOLD_AFTER
    return f"{run.job_name} failed {TOLD_AFTER} times in a row" if failed_each_time else None


def _failed_checks(
    instance: DagsterInstance, checks: Iterable[AssetCheckKey], memory: Memory
) -> Iterator[tuple[str, Problem]]:
    """Checks that fail as they were made last, each with its key; those that pass by now are over."""
    # Asked first: a run may end between these questions.
    at_work = set(instance.get_run_ids(RunsFilter(statuses=UNFINISHED)))
    made = {check: _evaluations(instance, check, memory) for check in checks}
    run_ids = list({record.run_id for records in made.values() for record in records if record.run_id})
    runs = instance.get_runs(RunsFilter(run_ids=run_ids)) if run_ids else []
    batches = {run.run_id: run.tags.get(PARTITION_TAG, "") for run in runs}
    at_work |= {run.run_id for run in runs if not run.is_finished}
    for check, records in made.items():
        # An evaluation takes the number that it was planned under: what is still to come is looked at again.
        to_come = [record.id for record in records if record.status is PLANNED and record.run_id in at_work]
        if records:
            memory.checks_through[check.to_user_string()] = min(to_come, default=records[0].id + 1) - 1
        seen = set[str]()
        for record in records:  # the newest first
            if record.status is PLANNED:
                continue
            event = record.event.dagster_event if record.event else None
            batch = batches.get(record.run_id, "")
            if event is None or batch in seen:
                continue
            seen.add(batch)
            found = event.asset_check_evaluation_data
            key = f"check {check.to_user_string()} {batch}"
            if not found.passed:
                yield key, _failed_check(check, found, batch, record.run_id)
            elif key in memory.problems:
                memory.problems[key].over = True


def _evaluations(
    instance: DagsterInstance, check: AssetCheckKey, memory: Memory
) -> list[AssetCheckExecutionRecord]:
    """Those since the last look, also planned ones, the newest first; at the first look, the newest ones."""
    history = instance.event_log_storage.get_asset_check_execution_history
    through = memory.checks_through.get(check.to_user_string())
    found: list[AssetCheckExecutionRecord] = []
    while page := history(check, CHECKS_PER_PAGE, cursor=found[-1].id if found else None):
        found += [record for record in page if record.id > (through or 0)]
        if through is None or page[-1].id <= through:
            break
    memory.checks_through.setdefault(check.to_user_string(), 0)
    return found


def _failed_check(check: AssetCheckKey, found: AssetCheckEvaluation, batch: str, run_id: str) -> Problem:
    name = f"{check.name} of {check.asset_key.to_user_string()}"
    offending = found.metadata.get("offending")
    return Problem(
        headline=f"check {name} failed ({found.severity.value})",
        sentence=found.description or f"{offending.value if offending else 'something'} offending",
        check=name,
        batch=batch,
        run_id=run_id,
    )
