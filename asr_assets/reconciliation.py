"""reconciliation: the source and the ingest log compared, whatever listings and events have missed."""

from dataclasses import asdict
from datetime import timedelta

from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DefaultScheduleStatus,
    FreshnessPolicy,
    MaterializeResult,
    RunRequest,
    ScheduleEvaluationContext,
    SkipReason,
    asset,
    schedule,
)

from asr_assets.raw_videos import patience_with_the_source
from resources.ingest_log import shared_log
from resources.models import SpeechModels
from resources.retries import all_pending
from resources.routing import Routing
from resources.source import Source
from resources.store import Store
from sensors.batches import RECONCILE, BatchLimits, Steps, at_work
from sensors.reconciling import reconcile
from sensors.retiring import retire, sum_up


def reconciliation_asset(limits: BatchLimits, steps: Steps) -> AssetsDefinition:
    """The asset, with the limits of this deployment and the steps that settle a batch."""

    @asset(
        group_name="ingestion",
        kinds={"s3"},
        # The one asset that is due whether or not videos come. A large bucket may take hours.
        freshness_policy=FreshnessPolicy.time_window(
            warn_window=timedelta(hours=6), fail_window=timedelta(hours=24)
        ),
        description=(
            "A look through the whole source, however long it takes: records the videos that nobody has "
            "noticed, and those that are gone. Here the ingest log's checkpoints are written, too, and old "
            "batches leave the list of partitions."
        ),
    )
    def reconciliation(
        context: AssetExecutionContext, source: Source, store: Store, speech_models: SpeechModels
    ) -> MaterializeResult:
        """Compare, record the difference, and say how large it was."""
        log = shared_log(store.url)
        with patience_with_the_source(context):
            found = reconcile(source, log, limits)
        unsettled = [pending.batch for pending in all_pending(store)]
        counts = asdict(found) | {
            "batches": len(found.batches),
            "checkpoints_written": log.write_checkpoints(),
            "partitions_retired": retire(
                context.instance, steps, Routing.of(speech_models, store), unsettled
            ),
        }
        sum_up(context.instance, steps)
        return MaterializeResult(metadata=counts)

    return reconciliation


@schedule(job_name=RECONCILE, cron_schedule="17 * * * *", default_status=DefaultScheduleStatus.RUNNING)
def reconcile_hourly(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    """Not while the last one is still at it: a large bucket takes longer than an hour."""
    if at_work(context.instance, RECONCILE):
        return SkipReason("the last reconciliation is still under way")
    return RunRequest()
