"""raw_videos: is each video of the batch there, is it that version, what streams does it have."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dagster import AssetExecutionContext, MaterializeResult, RetryRequested, asset

from asr_assets.columns import PROBED_COLUMNS, columns
from asr_assets.progress import Progress
from resources import layout
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.published import ProbedBatch, ProbedVideo, Status
from resources.sidecars import read_sidecars
from resources.source import Source
from resources.store import Store
from sensors.batches import BATCHES
from speech.errors import Reason, SourceUnavailable, VideoError
from speech.media import MediaDecoder
from speech.types import Seconds

SOURCE_RETRIES = 3
FIRST_WAIT_S: Seconds = 5.0


@asset(
    partitions_def=BATCHES,
    group_name="ingestion",
    kinds={"video"},
    metadata={"dagster/column_schema": columns(*PROBED_COLUMNS)},
    description=(
        "The videos of a batch, as they are at the source: whether each is still there, still the version "
        "that was ingested, and what streams its container has. Nothing is copied."
    ),
)
def raw_videos(context: AssetExecutionContext, source: Source, store: Store) -> MaterializeResult:
    """Probe every video of the batch; one that cannot be read becomes a row with a reason."""
    entry = IngestLog(store).batch(context.partition_key)
    with patience_with_the_source(context), MediaDecoder() as decoder:
        progress = Progress(context, "looking at videos")
        videos = tuple(probe(source, decoder, video) for video in progress(entry.videos))
    batch = ProbedBatch(batch=context.partition_key, videos=videos)
    store.put(layout.probed(batch.batch), batch.model_dump_json().encode())
    return MaterializeResult(
        metadata={"dagster/row_count": len(videos), "bytes": sum(video.size_bytes for video in entry.videos)}
        | count_reasons(videos)
    )


@contextmanager
def patience_with_the_source(context: AssetExecutionContext) -> Iterator[None]:
    """Try the step again, a few times, later and later, while the source as a whole is out of reach.

    Not a RetryPolicy: that would also start a step again that somebody has interrupted.
    """
    try:
        yield
    except SourceUnavailable as error:
        wait_s = FIRST_WAIT_S * 2**context.retry_number
        raise RetryRequested(max_retries=SOURCE_RETRIES, seconds_to_wait=wait_s) from error


def probe(source: Source, decoder: MediaDecoder, video: Video) -> ProbedVideo:
    """One video's container, or why there is nothing to transcribe."""
    try:
        with source.open(video) as data:
            media = decoder.probe(data, video.key)
    except VideoError as error:
        return ProbedVideo(video=video, status=Status.FAILED, reason=error.reason, message=str(error))
    sidecar = read_sidecars(source, video)
    if media.audio_stream is None:
        return ProbedVideo(
            video=video, status=Status.EMPTY, reason=Reason.NO_AUDIO, media=media, sidecar=sidecar
        )
    return ProbedVideo(video=video, status=Status.OK, media=media, sidecar=sidecar)


def count_reasons(videos: Iterable[ProbedVideo]) -> dict[str, int]:
    """Videos by status, and by reason where there is one, as metadata."""
    return dict(Counter(f"videos_{video.reason or video.status}" for video in videos))
