"""extracted_audio: each video's sound as 16 kHz FLAC on the video's own timeline."""

import tempfile
from pathlib import Path

from dagster import AssetExecutionContext, MaterializeResult, asset

from asr_assets.columns import EXTRACTED_COLUMNS, columns
from asr_assets.progress import Progress
from asr_assets.raw_videos import count_reasons, patience_with_the_source, raw_videos
from resources import layout
from resources.published import ExtractedBatch, ExtractedVideo, ProbedBatch, ProbedVideo, Status
from resources.source import Sounds, Source
from resources.store import Store
from sensors.batches import BATCHES
from speech.errors import Reason, VideoError
from speech.media import MediaDecoder


@asset(
    partitions_def=BATCHES,
    deps=[raw_videos],
    group_name="ingestion",
    kinds={"ffmpeg", "flac"},
    metadata={"dagster/column_schema": columns(*EXTRACTED_COLUMNS)},
    description=(
        "The sound of each video as FLAC, 16 kHz, mono or stereo; its first sample stands at the video's "
        "first moment, however late the audio track begins. Decoded in a child process that may die."
    ),
)
def extracted_audio(context: AssetExecutionContext, source: Source, store: Store) -> MaterializeResult:
    """Extract what can be extracted; audio that is in the store already is kept."""
    probed = ProbedBatch.read(store, layout.probed(context.partition_key))
    assert probed is not None  # raw_videos is upstream
    finished = extracted_before(store, context.partition_key)
    wanted = [v.video for v in probed.videos if v.status is Status.OK and v.video.video_id not in finished]
    videos = []
    with patience_with_the_source(context), MediaDecoder() as decoder:
        sounds = source.sounds(store, context.partition_key, wanted)
        for video in Progress(context, "extracting audio")(probed.videos):
            former = finished.get(video.video.video_id)
            videos.append(as_known_now(former, video) if former else extract(sounds, store, decoder, video))
    batch = ExtractedBatch(batch=context.partition_key, videos=tuple(videos))
    store.put(layout.extracted(batch.batch), batch.model_dump_json().encode())
    forget_conversions(store, batch)
    hours = sum(video.audio.duration_s for video in videos if video.audio) / 3600
    return MaterializeResult(
        metadata={"dagster/row_count": len(videos), "audio_hours": round(hours, 4), **count_reasons(videos)}
    )


def extract(sounds: Sounds, store: Store, decoder: MediaDecoder, probed: ProbedVideo) -> ExtractedVideo:
    """One video's audio, put in the store, or the reason why there is none."""
    if probed.status is not Status.OK:
        return ExtractedVideo(**dict(probed))
    video = probed.video
    with tempfile.TemporaryDirectory(prefix="asr-") as scratch:
        flac = Path(scratch) / "audio.flac"
        try:
            with sounds.open(video) as data:
                audio = decoder.extract(data, video.key, flac)
        except VideoError as error:
            failure = {"status": Status.FAILED, "reason": error.reason, "message": str(error)}
            return ExtractedVideo(**dict(probed) | failure)
        store.put(layout.audio(video.video_id), flac)
    return ExtractedVideo(**dict(probed), audio=audio)


def forget_conversions(store: Store, batch: ExtractedBatch) -> None:
    """Remove what MediaConvert was asked for, but for what the next try is to wait for, and not to pay again.

    Not video by video: a run that is killed has no audio yet, and would ask for all of it anew.
    """
    under_way = {one.video.video_id for one in batch.videos if one.reason is Reason.DECODER_STALLED}
    for found in store.list(layout.conversions(batch.batch)):
        if Path(found.key).stem not in under_way:
            store.delete(found.key)


def extracted_before(store: Store, batch: str) -> dict[str, ExtractedVideo]:
    """Videos of the batch that an earlier run is done with, by id.

    They stay as they are even when the source has moved on: the id names the version they came from.
    """
    former = ExtractedBatch.read(store, layout.extracted(batch))
    if former is None:
        return {}
    return {
        video.video.video_id: video
        for video in former.videos
        if (store.head(layout.audio(video.video.video_id)) if video.audio else is_final(video))
    }


def as_known_now(former: ExtractedVideo, probed: ProbedVideo) -> ExtractedVideo:
    """The same sound; what stands beside the video may have come since, if this version is still there."""
    return former.model_copy(update={"sidecar": probed.sidecar}) if probed.status is Status.OK else former


def is_final(video: ExtractedVideo) -> bool:
    """Whether looking at this version of the video again can give nothing else."""
    return video.reason is None or not video.reason.may_pass
