"""The real client of AWS, over HTTP, to a stand-in that decodes for real: the same words as without it."""

from collections.abc import Iterator

import boto3
import pytest

from asr_assets.extracted_audio import extract, forget_conversions
from deploy.local.stand_ins import StandIn
from resources import layout
from resources.aws import S3
from resources.backends import mediaconvert
from resources.published import ExtractedBatch, ProbedVideo, Status
from resources.source import Source
from resources.store import Store
from speech.errors import AsrError, MediaError, Reason, SourceObjectError
from speech.media import MediaDecoder
from tests.asr_assets.daemon import wait_for
from tests.conftest import SAMPLES, Platform

pytestmark = pytest.mark.long

NAMES = ("delayed_audio.mp4", "school.mp4", "corrupt.mp4", "soundless.mp4")
ROLE = "arn:aws:iam::123456789012:role/mediaconvert"


@pytest.fixture
def stand_in(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    made = StandIn(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDIACONVERT", made.url)
    for name in NAMES:
        made.s3.upload_file(str(SAMPLES / name), bucket, f"in/it's {name}")
    yield made
    made.end()


@pytest.fixture
def source(stand_in: StandIn) -> Source:
    url = f"s3://{stand_in.bucket}/in"
    return Source(url=url, extractor="mediaconvert", mediaconvert_role=ROLE, s3=S3())


@pytest.fixture
def s3_store(stand_in: StandIn) -> Store:
    return Store(url=f"s3://{stand_in.bucket}/platform")


def test_the_words_are_those_of_the_decoder(
    platform: Platform, stand_in: StandIn, s3_env: dict[str, str]
) -> None:
    stand_in.refused = 4  # more than the client tries by itself
    platform.env |= s3_env | {
        "AWS_ENDPOINT_URL_MEDIACONVERT": stand_in.url,
        "ASR_SOURCE_URL": f"s3://{stand_in.bucket}/in",
        "ASR_STORE_URL": f"s3://{stand_in.bucket}/platform",
        "ASR_EXTRACTOR": "mediaconvert",
        "ASR_MEDIACONVERT_ROLE": ROLE,
        "XDG_CACHE_HOME": str(platform.root / "cache"),
    }
    platform.must("run")
    # What has no sound that anybody could find is not paid for.
    assert sorted(url.rpartition(" ")[2] for url in stand_in.asked) == ["delayed_audio.mp4", "school.mp4"]
    made = platform.tables()["words"]
    platform.env |= {"ASR_EXTRACTOR": "here", "ASR_STORE_URL": str(platform.root / "data")}
    platform.must("run")
    assert platform.tables()["words"] == made
    listed = stand_in.s3.list_objects_v2(Bucket=stand_in.bucket, Prefix="platform/conversions")
    assert listed["KeyCount"] == 0


def test_who_comes_again_waits_for_the_same_job(source: Source, s3_store: Store, stand_in: StandIn) -> None:
    (video,) = (found for found in source.look() if "school" in found.key)
    stand_in.go.clear()
    source.sounds(s3_store, "00000001", [video])  # and is killed
    stand_in.jobs = {f"a minute later, {token}": job for token, job in stand_in.jobs.items()}
    stand_in.go.set()
    with source.sounds(s3_store, "00000001", [video]).open(video) as sound:
        assert sound.read_at(0, 4) == b"RIFF"
    assert len(stand_in.asked) == 1


def test_a_job_that_takes_too_long_is_waited_for_by_the_next_try(
    source: Source, s3_store: Store, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [found for found in source.look() if "school" in found.key or "delayed" in found.key]
    slow, quick = (video.video_id for video in videos)
    notes = {video_id: layout.conversion("00000001", video_id) for video_id in (slow, quick)}

    def one_pass(patience_s: float) -> dict[str, Reason | None]:
        """As the asset does it."""
        monkeypatch.setattr(mediaconvert, "JOB_S", patience_s)
        sounds = source.sounds(s3_store, "00000001", videos)
        with MediaDecoder() as decoder:
            done = tuple(
                extract(sounds, s3_store, decoder, ProbedVideo(video=video, status=Status.OK))
                for video in videos
            )
        forget_conversions(s3_store, ExtractedBatch(batch="00000001", videos=done))
        return {one.video.video_id: one.reason for one in done}

    def left() -> set[str]:
        return {found.key for found in s3_store.list(layout.conversions("00000001"))}

    stand_in.go.clear()
    assert one_pass(1.0) == dict.fromkeys(notes, Reason.DECODER_STALLED)
    assert left() == set(notes.values())
    stand_in.go.set()
    wait_for(lambda: all(job["status"] == "COMPLETE" for job in stand_in.jobs.values()), 60)
    stand_in.jobs[slow]["status"] = "PROGRESSING"
    assert one_pass(1.0) == {slow: Reason.DECODER_STALLED, quick: None}
    assert notes[slow] in left()
    assert not any(quick in key for key in left())
    stand_in.jobs[slow]["status"] = "COMPLETE"
    videos.pop()
    assert one_pass(60.0) == {slow: None}
    assert (left(), len(stand_in.asked)) == (set(), 2)


def test_a_job_that_is_forgotten_is_asked_for_again(
    source: Source, s3_store: Store, stand_in: StandIn
) -> None:
    (video,) = (found for found in source.look() if "school" in found.key)
    s3_store.put(layout.conversion("00000001", video.video_id), b'{"id": "of last year"}')
    sounds = source.sounds(s3_store, "00000001", [video])
    with pytest.raises(MediaError, match="canceled, or forgotten"), sounds.open(video):
        pass
    with source.sounds(s3_store, "00000001", [video]).open(video) as sound:
        assert sound.read_at(0, 4) == b"RIFF"


def test_a_job_that_fails_is_the_reason_of_its_video(
    source: Source, s3_store: Store, stand_in: StandIn
) -> None:
    videos = {found.key.rpartition(" ")[2]: found for found in source.look()}
    corrupt, school, late = (videos[name] for name in ("corrupt.mp4", "school.mp4", "delayed_audio.mp4"))
    stand_in.go.clear()
    sounds = source.sounds(s3_store, "00000001", [corrupt, school, late])
    stand_in.jobs[school.video_id]["status"] = "CANCELED"
    boto3.client("s3").put_object(Bucket=stand_in.bucket, Key=late.key, Body=b"another version")
    stand_in.go.set()
    for video, error, said in (
        (corrupt, MediaError, "MediaConvert failed: it: "),
        (school, MediaError, "its MediaConvert job was canceled"),
        (late, (SourceObjectError, MediaError), "changed since|MediaConvert failed"),
    ):
        with pytest.raises(error, match=said), sounds.open(video):
            pass
    assert list(s3_store.list(layout.conversions("00000001"))) == []


def test_what_cannot_be_is_a_sentence(source: Source, store: Store, s3_store: Store) -> None:
    videos = list(source.look())
    with pytest.raises(AsrError, match="set ASR_SOURCE_URL and ASR_STORE_URL to s3://"):
        source.sounds(store, "00000001", videos)
    roleless = source.model_copy(update={"mediaconvert_role": ""})
    with pytest.raises(AsrError, match="set ASR_MEDIACONVERT_ROLE"):
        roleless.sounds(s3_store, "00000001", videos)
