"""transcripts/<model_version>: the words of a batch as one model version hears them. One factory."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    Config,
    MaterializeResult,
    asset,
)
from pydantic import Field

from asr_assets.checks import TRANSCRIPT_CHECKS, check_transcripts, specs
from asr_assets.columns import WORD_COLUMNS, columns
from asr_assets.extracted_audio import extracted_audio
from asr_assets.on_kubernetes import STARTED_AGAIN
from asr_assets.pictures import batch_table, words_over_sound
from asr_assets.progress import Progress
from asr_assets.transcription import BatchTranscription
from resources import layout
from resources.models import SpeechModels
from resources.published import ExtractedBatch
from resources.routing import Routing
from resources.store import Store
from sensors.batches import BATCHES
from speech.models import ModelVersion


class TranscriptsConfig(Config):
    """What one may ask of a single run."""

    recompute: bool = Field(
        default=False,
        description="Transcribe again also the videos whose words from this definition are there",
    )


def transcripts_key(model: str) -> AssetKey:
    """The asset of a model version."""
    return AssetKey(["transcripts", model])


def transcripts_asset(model: ModelVersion, pod: Mapping[str, Any] | None = None) -> AssetsDefinition:
    """The asset of one model version; ``pod`` is the tags of its step, where that has a pod of its own."""
    key = transcripts_key(model.name)

    @asset(
        key=key,
        partitions_def=BATCHES,
        deps=[extracted_audio],
        group_name="transcripts",
        kinds={model.engine, "parquet"},
        # The UI marks batches as outdated whose words came from another definition of this name.
        code_version=model.fingerprint,
        pool=f"transcripts_{model.name}",
        op_tags=pod,
        retry_policy=STARTED_AGAIN if pod else None,
        check_specs=specs(TRANSCRIPT_CHECKS, key),
        metadata={
            "dagster/column_schema": columns(*WORD_COLUMNS),
            "engine": model.engine,
            "language": model.language,
        },
        description=f"Every word of a batch, with start, end and probability. {model.description}",
    )
    def transcripts(
        context: AssetExecutionContext, config: TranscriptsConfig, store: Store, speech_models: SpeechModels
    ) -> MaterializeResult:
        batch = context.partition_key
        extracted = ExtractedBatch.read(store, layout.extracted(batch))
        assert extracted is not None  # extracted_audio is upstream
        definition = speech_models.get(model.name)
        routing = Routing.of(speech_models, store)
        work = BatchTranscription(
            store, definition, definition.fingerprint, batch, context.run.run_id, routing
        )

        before = () if config.recompute else work.from_before(extracted)
        finished = {video.outcome.video_id: video for video in work.left(extracted)}
        finished |= {video.outcome.video_id: video for video in before}  # words that are there stay
        finished |= {video.outcome.video_id: video for video in work.without_engine(extracted)}
        in_order = [video.video.video_id for video in extracted.videos]
        if waiting := [video for video in extracted.videos if video.video.video_id not in finished]:
            progress = Progress(context, f"transcribing with {model.name}")
            progress.at(0, len(waiting))
            with speech_models.load(definition, store, batch) as transcriber:
                for done, video in enumerate(work.transcribe(transcriber, waiting), start=1):
                    finished[video.outcome.video_id] = video
                    progress.at(done, len(waiting))
        videos = [finished[video_id] for video_id in in_order]
        published = work.publish(extracted, videos)

        heard = [video for video in videos if video.attempt]
        seconds = sum(video.attempt.seconds for video in heard if video.attempt)
        audio_s = sum(video.outcome.duration_s or 0.0 for video in heard)
        return MaterializeResult(
            metadata={
                "dagster/row_count": len(published.words),
                "fingerprint": work.fingerprint,
                "videos_transcribed_now": len(heard),
                "rtfx": round(audio_s / seconds, 2) if seconds else None,
                **Counter(f"videos_{v.outcome.reason or v.outcome.status}" for v in videos),
                "batch": batch_table(videos),
                **({"words_over_sound": words_over_sound(rows)} if (rows := work.drawn(videos)) else {}),
            },
            check_results=list(check_transcripts(published, extracted, key)),
        )

    return transcripts
