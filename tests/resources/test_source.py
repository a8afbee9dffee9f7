"""The source: whatever keys it has, and whatever happens to an object between listing and reading."""

import os
import time
from pathlib import Path

import boto3
import pytest

from resources.aws import S3
from resources.observations import Video
from resources.source import Source
from speech.errors import Reason, SourceObjectError, SourceUnavailable

HOSTILE = [
    "a'b\".mp4",
    "x; DROP TABLE words;--.mp4",
    "comma,pipe|.mp4",
    "Ünïcödé 🎬.mp4",
    "\u202eright-to-left.mp4",
    "sp ace/%2e%2e/deep.mp4",
    "new\nline.mp4",
]


class Origin:
    """A source that a test can write to."""

    def __init__(self, url: str, folder: Path | None) -> None:
        self.source = Source(url=url, s3=S3())
        self._folder = folder
        self._bucket = url.removeprefix("s3://").split("/")[0]

    def put(self, key: str, data: bytes) -> None:
        if self._folder:
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, ns=(time.time_ns(), time.time_ns()))
        else:
            boto3.client("s3").put_object(Bucket=self._bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        if self._folder:
            (self._folder / key).unlink()
        else:
            boto3.client("s3").delete_object(Bucket=self._bucket, Key=key)

    def videos(self) -> dict[str, Video]:
        return {video.key: video for video in self.source.look()}


@pytest.fixture(params=["folder", "s3"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Origin:
    if request.param == "folder":
        (tmp_path / "in").mkdir()
        return Origin(f"file://{tmp_path / 'in'}", tmp_path / "in")
    return Origin(f"s3://{request.getfixturevalue('bucket')}", None)


def test_any_key_is_listed_and_read_back_unchanged(origin: Origin) -> None:
    # The S3 stand-in answers 404 to keys with a newline; a folder has them.
    keys = [key for key in HOSTILE if origin.source.url.startswith("file") or "\n" not in key]
    for key in keys:
        origin.put(key, key.encode())
    origin.put("notes.txt", b"not a video")
    origin.put("folder/._a.mp4", b"what a file manager left")
    found = origin.videos()
    assert set(found) == set(keys)
    for key, video in found.items():
        with origin.source.open(video) as data:
            assert data.read_at(0, 10_000) == key.encode()
            assert data.read_at(2, 3) == key.encode()[2:5]
            assert data.read_at(data.size, 1) == b""


def test_other_bytes_under_the_same_key_are_another_video(origin: Origin) -> None:
    origin.put("a.mp4", b"old bytes")
    old = origin.videos()["a.mp4"]
    origin.put("a.mp4", b"new bytes")
    assert origin.videos()["a.mp4"].video_id != old.video_id
    with pytest.raises(SourceObjectError, match=r"a\.mp4: changed since") as gone, origin.source.open(old):
        pass
    assert gone.value.reason is Reason.SUPERSEDED


@pytest.mark.case(22)
def test_an_object_that_changes_while_it_is_read_is_noticed(origin: Origin) -> None:
    origin.put("a.mp4", b"x" * (9 << 20))
    video = origin.videos()["a.mp4"]

    def read() -> None:
        with origin.source.open(video) as data:
            data.read_at(0, 10)
            origin.put("a.mp4", b"y" * (9 << 20))
            data.read_at(8 << 20, 1 << 20)

    with pytest.raises(SourceObjectError, match="changed since"):
        read()


@pytest.mark.case(23)
def test_an_object_that_is_gone_is_missing(origin: Origin) -> None:
    origin.put("a.mp4", b"bytes")
    video = origin.videos()["a.mp4"]
    origin.delete("a.mp4")
    with pytest.raises(SourceObjectError) as gone, origin.source.open(video):
        pass
    assert gone.value.reason is Reason.MISSING


def test_an_object_that_the_source_refuses_is_that_videos_problem(origin: Origin, tmp_path: Path) -> None:
    origin.put("a.mp4", b"bytes")
    video = origin.videos()["a.mp4"]
    if origin.source.url.startswith("s3"):
        bucket = origin.source.url.removeprefix("s3://")
        boto3.client("s3").put_object(Bucket=bucket, Key="a.mp4", Body=b"bytes", StorageClass="GLACIER")
    else:
        origin.delete("a.mp4")
        (tmp_path / "in" / "a.mp4").mkdir()
    with pytest.raises(SourceObjectError, match=r"a\.mp4") as refused, origin.source.open(video):
        pass
    assert refused.value.reason is Reason.UNREADABLE_OBJECT


def test_a_link_in_the_place_of_a_video_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    origin = Origin(f"file://{tmp_path / 'in'}", tmp_path / "in")
    origin.put("a.mp4", b"bytes")
    video = origin.videos()["a.mp4"]
    secret = tmp_path / "secret"
    (tmp_path / "in" / "a.mp4").rename(secret)
    (tmp_path / "in" / "a.mp4").symlink_to(secret)
    with pytest.raises(SourceObjectError), origin.source.open(video):
        pass
    assert origin.videos() == {}


def test_a_neighbouring_prefix_is_not_taken_in(bucket: str) -> None:
    for key in ("videos/a.mp4", "videos-private/b.mp4"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x")
    assert list(Origin(f"s3://{bucket}/videos", None).videos()) == ["videos/a.mp4"]


def test_a_deep_folder_and_a_strange_date_are_listed(tmp_path: Path) -> None:
    deep = tmp_path / "in"
    deep.mkdir()
    origin = Origin(f"file://{deep}", deep)
    nested = "/".join("d" for _ in range(400))
    origin.put(f"{nested}/a.mp4", b"x")
    origin.put("old.mp4", b"x")
    os.utime(deep / "old.mp4", (-(10.0**9), -(10.0**9)))
    assert set(origin.videos()) == {f"{nested}/a.mp4", "old.mp4"}


def test_same_names_in_two_folders_are_two_videos(origin: Origin) -> None:
    origin.put("one/a.mp4", b"bytes")
    origin.put("two/a.mp4", b"bytes")
    assert len({video.video_id for video in origin.videos().values()}) == 2


@pytest.mark.parametrize("url", ["file:///no/such/folder", "s3://no-such-bucket/videos", "ftp://x/y"])
def test_a_source_that_cannot_be_read_is_an_error_and_not_an_empty_listing(
    url: str, s3_env: dict[str, str]
) -> None:
    with pytest.raises(SourceUnavailable, match="ASR_SOURCE_URL"):
        list(Source(url=url, s3=S3()).look())


def test_a_name_that_is_not_text_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "good.mp4").write_bytes(b"x")
    Path(os.fsdecode(bytes(tmp_path) + b"/bad\xff.mp4")).write_bytes(b"x")
    found = list(Source(url=f"file://{tmp_path}", s3=S3()).look())
    assert [video.key for video in found] == ["good.mp4"]
    assert "not UTF-8" in caplog.text
