"""Are words late? One check of word_timings says so, whether or not anything runs.

Batches come when videos come, so a policy on the age of the last load would cry whenever nobody uploads.
Late is a video: noticed longer ago than the promise, and still without an outcome that readers can see.
"""

from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    DefaultSensorStatus,
    EventLogEntry,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from resources import layout
from resources.figures import Figures
from resources.numbered_log import NumberedLog
from resources.observations import IngestEntry
from resources.store import Store
from sensors.following import INGESTED_THROUGH, mark
from speech.types import Seconds

FIGURES = "figures"
"""Metadata of word_timings: what :func:`resources.figures.measure` found after the load."""


def figures_of(load: EventLogEntry | None) -> Figures:
    """As the newest load left them."""
    taken = load.asset_materialization if load else None
    return (
        Figures.model_validate(taken.metadata[FIGURES].value)
        if taken and FIGURES in taken.metadata
        else Figures()
    )


def not_loaded_since(load: EventLogEntry | None, store: Store) -> datetime | None:
    """When the first entry of the ingest log was written that the newest load does not have."""
    log = NumberedLog(store, layout.INGEST, IngestEntry)
    entry = log.entry(mark(load, INGESTED_THROUGH) + 1)
    return entry.observed_at if entry else None


def waiting_since(instance: DagsterInstance, store: Store, words: AssetKey) -> datetime | None:
    """When the video was noticed that has waited longest; None when none waits.

    By the newest load and the one entry after it, so that it costs the same however many videos there are,
    and grows while no load succeeds.
    """
    load = instance.get_latest_materialization_event(words)
    found = (figures_of(load).waiting_since, not_loaded_since(load, store))
    return min((since for since in found if since), default=None)


def evaluation(
    check: AssetCheckKey, since: datetime | None, within_s: Seconds, now: datetime | None = None
) -> AssetCheckEvaluation:
    """What the check says about a video that waits since then."""
    waited = (now or datetime.now(UTC)) - since if since else timedelta(0)
    is_late = waited.total_seconds() > within_s
    return AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not is_late,
        # Nothing is wrong with the words that are there; and a command that just loaded them succeeded.
        severity=AssetCheckSeverity.WARN,
        description=(
            f"the video that waits longest was noticed at {since:%Y-%m-%d %H:%M} UTC and has no words after "
            f"{within_s / 60:g} minutes: look at failed runs, then at the queue"
            if is_late
            else f"no video waits longer than {within_s / 60:g} minutes for its words"
        ),
        metadata={"waiting_s": round(waited.total_seconds())},
    )


def lateness_sensor(check: AssetCheckKey, within_s: Seconds, interval_s: int = 30) -> SensorDefinition:
    """The sensor. It tells Dagster when the check's state changes, without a run."""

    @sensor(
        name="late_words",
        minimum_interval_seconds=interval_s,
        default_status=DefaultSensorStatus.RUNNING,
        description="Keeps the check words_on_time true between loads: words become late by waiting.",
    )
    def late_words(context: SensorEvaluationContext, store: Store) -> SensorResult:
        since = waiting_since(context.instance, store, check.asset_key)
        found = evaluation(check, since, within_s)
        changed = found.passed is not last_said(context.instance, check)
        return SensorResult(
            skip_reason=SkipReason(found.description), asset_events=[found] if changed else []
        )

    return late_words


def last_said(instance: DagsterInstance, check: AssetCheckKey) -> bool | None:
    """Whether the check passed when it was evaluated last; None before the first time."""
    record = instance.get_latest_asset_check_evaluation_record(check)
    event = record.event.dagster_event if record and record.event else None
    return (
        event.asset_check_evaluation_data.passed
        if event and event.event_type_value == "ASSET_CHECK_EVALUATION"
        else None
    )
