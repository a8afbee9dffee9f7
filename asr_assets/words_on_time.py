"""words_on_time: are words late? A check, made after each load and, by a sensor, between two loads."""

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetChecksDefinition,
    asset_check,
)

from asr_assets.word_timings import WORD_TIMINGS
from resources.store import Store
from sensors.lateness import evaluation, waiting_since
from speech.types import Seconds

WORDS_ON_TIME = AssetCheckKey(WORD_TIMINGS, "words_on_time")


def words_on_time_check(within_s: Seconds) -> AssetChecksDefinition:
    """The check, with the promise of this deployment."""

    @asset_check(
        asset=WORD_TIMINGS,
        name=WORDS_ON_TIME.name,
        description=(
            f"No current video waits longer than {within_s / 60:g} minutes for an outcome that readers see."
        ),
    )
    def words_on_time(context: AssetCheckExecutionContext, store: Store) -> AssetCheckResult:
        since = waiting_since(context.instance, store, WORD_TIMINGS)
        found = evaluation(WORDS_ON_TIME, since, within_s)
        return AssetCheckResult(
            passed=found.passed,
            severity=found.severity,
            description=found.description,
            metadata=found.metadata,
        )

    return words_on_time
