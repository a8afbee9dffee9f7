"""raw_videos: is each video of the batch there, is it that version, what streams does it have."""

from collections import Counter
from collections.abc import Iterable

from dagster import AssetExecutionContext, Backoff, MaterializeResult, RetryPolicy, asset

from asr_assets.columns import PROBED_COLUMNS, columns
from asr_assets.progress import Progress
from resources import layout
from resources.ingest_log import IngestLog, Video
from resources.published import ProbedBatch, ProbedVideo, Status
from resources.source import Source
from resources.store import Store
from sensors.batches import BATCHES
from speech.errors import Reason, VideoError
from speech.media import MediaDecoder

# For a source that is out of reach for a moment; what is wrong with a video raises nothing.
SOURCE_RETRIES = RetryPolicy(max_retries=3, delay=5, backoff=Backoff.EXPONENTIAL)


@asset(
    partitions_def=BATCHES,
    group_name="ingestion",
    kinds={"video"},
    metadata={"dagster/column_schema": columns(*PROBED_COLUMNS)},
    retry_policy=SOURCE_RETRIES,
    description=(
        "The videos of a batch, as they are at the source: whether each is still there, still the version "
        "that was ingested, and what streams its container has. Nothing is copied."
    ),
)
def raw_videos(context: AssetExecutionContext, source: Source, store: Store) -> MaterializeResult:
    """Probe every video of the batch; one that cannot be read becomes a row with a reason."""
    entry = IngestLog(store).batch(context.partition_key)
    with MediaDecoder() as decoder:
        progress = Progress(context, "looking at videos")
        videos = tuple(probe(source, decoder, video) for video in progress(entry.videos))
    batch = ProbedBatch(batch=context.partition_key, videos=videos)
    store.put(layout.probed(batch.batch), batch.model_dump_json().encode())
    return MaterializeResult(
        metadata={"dagster/row_count": len(videos), "bytes": sum(video.size_bytes for video in entry.videos)}
        | count_reasons(videos)
    )


def probe(source: Source, decoder: MediaDecoder, video: Video) -> ProbedVideo:
    """One video's container, or why there is nothing to transcribe."""
    try:
        with source.open(video) as data:
            media = decoder.probe(data, video.key)
    except VideoError as error:
        return ProbedVideo(video=video, status=Status.FAILED, reason=error.reason, message=str(error))
    if media.audio_stream is None:
        return ProbedVideo(video=video, status=Status.EMPTY, reason=Reason.NO_AUDIO, media=media)
    return ProbedVideo(video=video, status=Status.OK, media=media)


def count_reasons(videos: Iterable[ProbedVideo]) -> dict[str, int]:
    """Videos by status, and by reason where there is one, as metadata."""
    return dict(Counter(f"videos_{video.reason or video.status}" for video in videos))
