"""Back-off: who does not answer is asked again later and later, and the tick says why and when."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, SensorEvaluationContext, SkipReason
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import SensorInstigatorData
from pydantic import BaseModel, ValidationError

from speech.errors import SourceUnavailable

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=10)
PATIENT = ("new_videos", "bucket_events")


class Refusal(BaseModel, frozen=True):
    """How often in a row nobody answered; stands in the sensor's cursor until somebody does."""

    times: int
    ask_after: datetime


def patiently(
    context: SensorEvaluationContext, work: Callable[[], str], now: datetime | None = None
) -> SkipReason:
    """A tick of ``work``, which says what came of it, or raises SourceUnavailable."""
    now = now or datetime.now(UTC)
    former = _refusal(context.cursor)
    if former and now < former.ask_after:
        return SkipReason(f"no answer {former.times} times in a row; asked again {_at(former)}")
    try:
        said = work()
    except SourceUnavailable as error:
        times = former.times + 1 if former else 1
        wait = min(FIRST_WAIT * 2 ** min(times - 1, 10), LONGEST_WAIT)
        refusal = Refusal(times=times, ask_after=now + wait)
        context.update_cursor(refusal.model_dump_json())
        return SkipReason(f"{error}; asked again {_at(refusal)}")
    context.update_cursor("")
    return SkipReason(said)


def refusals(instance: DagsterInstance) -> dict[str, int]:
    """How often in a row each of the patient sensors was not answered; 0 for one that was."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    cursors = {
        state.instigator_name: state.instigator_data.cursor
        for state in states
        if state.instigator_name in PATIENT and isinstance(state.instigator_data, SensorInstigatorData)
    }
    return {name: refusal.times if (refusal := _refusal(cursor)) else 0 for name, cursor in cursors.items()}


def _refusal(cursor: str | None) -> Refusal | None:
    try:
        return Refusal.model_validate_json(cursor) if cursor else None
    except ValidationError:
        return None  # somebody has set it by hand: ask at once


def _at(refusal: Refusal) -> str:
    return f"after {refusal.ask_after:%H:%M:%S} UTC"
