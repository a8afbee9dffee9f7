"""The same code on buckets: source and store over S3."""

import boto3

from tests.conftest import SAMPLES, Platform

NAMES = ("delayed_audio.mp4", "soundless.mp4", "corrupt.mp4")


def test_a_bucket_to_words_and_back_again(platform: Platform, bucket: str, s3_env: dict[str, str]) -> None:
    client = boto3.client("s3")
    for name in NAMES:
        client.upload_file(str(SAMPLES / name), bucket, f"in/it's/{name}")
    platform.env |= s3_env | {
        "ASR_SOURCE_URL": f"s3://{bucket}/in",
        "ASR_STORE_URL": f"s3://{bucket}/platform",
        "XDG_CACHE_HOME": str(platform.root / "cache"),
    }
    platform.must("run")
    assert platform.sql(
        "SELECT v.video_key, v.source, t.status, t.reason, t.words > 15 "
        "FROM videos_current v JOIN transcripts t USING (video_id) ORDER BY ALL"
    ) == [
        f"in/it's/corrupt.mp4,s3://{bucket},failed,unreadable_media,False",
        f"in/it's/delayed_audio.mp4,s3://{bucket},ok,,True",
        f"in/it's/soundless.mp4,s3://{bucket},empty,no_audio,False",
    ]
    before = platform.tables()
    assert "the picture starts first" in platform.must("search", "picture starts first")
    assert len(list((platform.root / "cache" / "asr").glob("*.duckdb"))) == 1

    client.put_object(Bucket=bucket, Key="in/it's/corrupt.mp4", Body=(SAMPLES / "silent.mp4").read_bytes())
    client.delete_object(Bucket=bucket, Key="in/it's/soundless.mp4")
    platform.must("run")
    assert platform.sql("SELECT status, reason FROM videos_current WHERE video_key LIKE '%corrupt%'") == [
        "ok,"
    ]
    assert platform.tables()["words"] == before["words"]
