"""What a run failed of, in a sentence of ours. Others' texts may hold a video's name."""

from dagster import DagsterEventType, DagsterInstance
from dagster_shared.error import SerializableErrorInfo

from speech.errors import AsrError


def of_ours(error: SerializableErrorInfo | None) -> str | None:
    """The message of the first AsrError in the chain of causes; None where there is none."""
    ours = {kind.__name__ for kind in _kinds_of(AsrError)}
    while error:
        if error.cls_name in ours:
            return text_of(error)
        error = error.cause
    return None


def text_of(error: SerializableErrorInfo) -> str:
    """Its message without its class: Dagster stores "module.Class: message"."""
    return error.message.strip().split(": ", 1)[-1]


def why_it_failed(instance: DagsterInstance, run_id: str) -> str:
    """Of the first step that failed; the kind of error where it is none of ours."""
    failed = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE, limit=1).records
    event = failed[0].event_log_entry.dagster_event if failed else None
    if event is None:
        return "its process was ended"
    error = event.step_failure_data.error
    return of_ours(error) or f"{_innermost(error)} in {event.step_key}; the run's log says more"


def _innermost(error: SerializableErrorInfo | None) -> str:
    while error and error.cause:
        error = error.cause
    return (error and error.cls_name) or "an error"


def _kinds_of(kind: type[AsrError]) -> set[type[AsrError]]:
    return {kind}.union(*(_kinds_of(child) for child in kind.__subclasses__()))
