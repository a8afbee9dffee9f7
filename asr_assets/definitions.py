"""What Dagster loads: the assets, the jobs, the sensors and the one table of resources."""

from dagster import (
    MAX_RUNTIME_SECONDS_TAG,
    AssetKey,
    Definitions,
    EnvVar,
    define_asset_job,
    in_process_executor,
)

from asr_assets.extracted_audio import extracted_audio
from asr_assets.launchers import hold_with_parent
from asr_assets.model_comparison import MODEL_COMPARISON, model_comparison_asset
from asr_assets.on_kubernetes import copier_pod, loader_pod, pod_executor, transcripts_pod
from asr_assets.postgres_words import POSTGRES_WORDS, postgres_words_asset
from asr_assets.raw_videos import raw_videos
from asr_assets.reconciliation import reconcile_hourly, reconciliation_asset
from asr_assets.transcripts import transcripts_asset, transcripts_key
from asr_assets.word_timings import WORD_TIMINGS, word_timings_asset
from asr_assets.words_on_time import WORDS_ON_TIME, words_on_time_check
from resources.alerts import AlertHook
from resources.event_queue import EventQueue
from resources.models import SpeechModels
from resources.pods import Pod
from resources.postgres import PostgresMirror
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.alerting import alerting_sensor
from sensors.batches import (
    COMPARE_MODELS,
    COPY_WORDS,
    LOAD_WORDS,
    PROCESS_BATCH,
    RECONCILE,
    BatchLimits,
    Steps,
)
from sensors.events import event_sensor
from sensors.following import Following, following_sensor
from sensors.lateness import lateness_sensor
from sensors.listing import listing_sensor
from sensors.metering import metering_sensor
from sensors.offering import offering_sensor
from sensors.retrying import retry_sensor
from speech.errors import AsrError


def build(settings: Settings) -> Definitions:
    """All definitions for one environment.

    Raises :class:`~speech.errors.ModelError` when the model versions are badly written.
    """
    models = SpeechModels.of(settings)
    enabled = [model.name for model in models.enabled]
    if f"{settings.store_url}/".startswith(f"{settings.source_url}/"):
        raise AsrError(
            f"the store {settings.store_url} lies inside the source {settings.source_url}, so the platform "
            "would take in its own audio; set ASR_STORE_URL or ASR_SOURCE_URL to another place"
        )
    limits = BatchLimits.of(settings)
    queues = [EventQueue(url=settings.queue_url)] if settings.queue_url else []
    pods = settings.executor == "kubernetes"
    transcripts = [
        transcripts_asset(model, transcripts_pod(Pod.read(models.path, model.name)) if pods else None)
        for model in models.enabled
    ]
    loader = loader_pod(settings) if pods else None
    transcripts_keys = [transcripts_key(name) for name in enabled]
    steps = Steps([raw_videos.key, extracted_audio.key], dict(zip(enabled, transcripts_keys, strict=True)))
    reconciliation = reconciliation_asset(limits, steps)
    reconcile = define_asset_job(
        RECONCILE,
        selection=[reconciliation],
        tags=watched(settings),
        description="Find what listings and events have missed, and what is gone.",
    )

    main = Definitions(
        assets=[
            reconciliation,
            raw_videos,
            extracted_audio,
            *transcripts,
            word_timings_asset(enabled, models.get(models.first_champion), loader),
            model_comparison_asset(loader),
        ],
        asset_checks=[words_on_time_check(settings.words_within_s)],
        jobs=[
            define_asset_job(
                PROCESS_BATCH,
                selection=[raw_videos, extracted_audio, *transcripts],
                tags=watched(settings),
                description="One batch, one run: probe, extract, transcribe by each enabled model version.",
            ),
            define_asset_job(
                LOAD_WORDS,
                selection=[WORD_TIMINGS],
                tags=watched(settings),
                description="Load what is published into DuckDB and publish a copy for readers.",
            ),
            define_asset_job(
                COMPARE_MODELS,
                selection=[MODEL_COMPARISON],
                tags=watched(settings),
                description="Set the champion against each other model version, where there is news.",
            ),
            reconcile,
        ],
        schedules=[reconcile_hourly],
        sensors=[
            listing_sensor(limits, interval_s=15),
            *(event_sensor(queue, limits, interval_s=15) for queue in queues),
            offering_sensor(steps, interval_s=10),
            retry_sensor(steps),
            lateness_sensor(WORDS_ON_TIME, settings.words_within_s),
            following_sensor(
                "published_words",
                Following(
                    WORD_TIMINGS,
                    LOAD_WORDS,
                    after=[extracted_audio.key, *transcripts_keys],
                    interval_s=settings.publish_every_s,
                    log=True,
                ),
                "Asks for a load when transcripts were published that the warehouse does not have.",
            ),
            following_sensor(
                "loaded_words",
                Following(MODEL_COMPARISON, COMPARE_MODELS, after=[WORD_TIMINGS], interval_s=600),
                "Asks for a comparison when words were loaded, every ten minutes at most.",
            ),
        ],
        resources={
            # Secrets are in none of these: S3 credentials come from the AWS environment alone.
            "source": Source.of(settings),
            "store": Store(url=settings.store_url),
            "speech_models": models,
            "warehouse": Warehouse(path=str(settings.warehouse)),
        },
        # A process per step costs 7 s more a batch, and a pod more than that: worth it for other machines.
        executor=pod_executor(settings) if pods else in_process_executor,
    )
    wanted = [
        *([mirror(settings)] if settings.postgres_url else []),
        *([alerting()] if settings.alert_url else []),
        *([metering([extracted_audio.key, *transcripts_keys])] if settings.otlp_endpoint else []),
    ]
    return Definitions.merge(main, *wanted)


def watched(settings: Settings) -> dict[str, str]:
    """Tags by which Dagster ends a run that hangs where nothing else notices, as on a dead mount."""
    return {MAX_RUNTIME_SECONDS_TAG: str(settings.max_run_s)}


def mirror(settings: Settings) -> Definitions:
    """What is there only where a PostgreSQL database is set."""
    return Definitions(
        assets=[postgres_words_asset(copier_pod() if settings.executor == "kubernetes" else None)],
        jobs=[
            define_asset_job(
                COPY_WORDS,
                selection=[POSTGRES_WORDS],
                tags=watched(settings),
                description="Bring PostgreSQL up to date with the newest published copy.",
            )
        ],
        sensors=[
            following_sensor(
                "words_for_postgres",
                Following(
                    POSTGRES_WORDS, COPY_WORDS, after=[WORD_TIMINGS], interval_s=settings.publish_every_s
                ),
                "Asks for a sync when words were loaded that PostgreSQL does not have.",
            )
        ],
        # It may hold a password: read when it is used, and shown as the name of a variable.
        resources={"postgres": PostgresMirror(url=EnvVar("ASR_POSTGRES_URL"))},
    )


def alerting() -> Definitions:
    """What is there only where a hook is set."""
    return Definitions(
        sensors=[alerting_sensor()],
        # Whoever knows the URL may write there: read when it is used, and shown as the name of a variable.
        resources={"alert_hook": AlertHook(url=EnvVar("ASR_ALERT_URL"))},
    )


def metering(published: list[AssetKey]) -> Definitions:
    """What is there only where a collector of metrics is set."""
    return Definitions(sensors=[metering_sensor(WORD_TIMINGS, published)])


hold_with_parent()
defs = build(Settings.from_env())
