"""What the pages say, and what they refuse, over HTTP."""

import html
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from asr_assets.comparing import compare_batch, not_compared
from explorer.writing import bars
from resources.comparisons import Pair, publish
from resources.observations import Video
from resources.search import Found
from resources.verdicts import verdicts_of
from tests.conftest import Platform
from tests.explorer.conftest import HARM, HOSTILE, Explored, exploring

PATIENCE_S = 30
NOW = datetime.now(UTC)


def get(explored: Explored, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{explored.url}{path}", headers=headers, timeout=PATIENCE_S, allow_redirects=False)


@pytest.mark.parametrize(
    ("asked", "count", "shown"),
    [
        ("q=library", 1, "<mark>library</mark>"),
        ("q=THE+Library!", 1, "<mark>the library</mark>"),
        ("q=day+from", 1, "<mark>day from</mark>"),
        ("q=is&model=n", 1, "<mark>is</mark> not a word"),
        ("q=is", 2, "open every day"),
        ("q=is&video=talk", 1, "talk.mp4"),
        ("q=is&language=de", 0, "Nobody says that where these filters look"),
        ("q=is&at_least=0.9", 2, "0.90"),
        ("q=is&at_least=0.95", 0, "Nobody"),
        ("q=nobody", 0, "Nobody says that."),
    ],
)
def test_search(read: Explored, asked: str, count: int, shown: str) -> None:
    found = get(read, f"/?{asked}")
    assert found.status_code == 200
    assert found.text.count('<li><a href="/video/') == count
    assert shown in found.text


@pytest.mark.parametrize(
    ("step", "over_time", "shown"),
    [
        ("hour", [], []),
        ("hour", [("2026-01-01T23", 2), ("2026-01-02T01", 1)],
         [("2026-01-01 23:00", 2, 100), ("2026-01-02 00:00", 0, 0), ("2026-01-02 01:00", 1, 50)]),
        ("day", [("2024-02-28", 1), ("2024-03-01", 1)],
         [("2024-02-28", 1, 100), ("2024-02-29", 0, 0), ("2024-03-01", 1, 100)]),
        ("month", [("2025-12-01", 1), ("2026-01-01", 4)], [("2025-12", 1, 25), ("2026-01", 4, 100)]),
        ("month", [("1970-01-01", 1), ("9999-12-01", 1)], [("1970-01", 1, 100), ("9999-12", 1, 100)]),
        ("month", [("9999-12-01", 1)], [("9999-12", 1, 100)]),
    ],
)  # fmt: skip
def test_the_histogram_has_its_gaps(step: str, over_time: Any, shown: Any) -> None:
    times = [(datetime.fromisoformat(when).replace(tzinfo=UTC), count) for when, count in over_time]
    found = Found(sum(count for _, count in times), [], step, times)
    assert [(bar.when, bar.times, bar.height) for bar in bars(found)] == shown


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/?q=%21%3F", 400, "there is no word in what you search for"),
        ("/?q=" + "a" * 2000, 200, "Nobody"),
        ("/?q=is&from=x&at_least=nan", 200, "places"),
        ("/?q='; DROP TABLE videos; --", 200, "Nobody"),
        ("/?q=is&video=' OR 1=1 --", 200, "Nobody"),
        ("/?q=%ff%00", 400, "there is no word"),
        ("/video/nothing", 404, "no such video"),
        ("/media/..%2f..%2fetc%2fpasswd", 404, ""),
        ("/static/..%2f..%2fpages.py", 404, ""),
        ("/media/%2e%2e/%2e%2e/etc/passwd", 404, ""),
        ("/captions/nothing/m", 404, "no such video"),
        ("/?q=x%0d%0aSet-Cookie:%20a=b", 200, "Nobody"),
    ],
)
def test_bad_questions(read: Explored, path: str, status: int, says: str) -> None:
    found = get(read, path)
    assert (found.status_code, says in found.text) == (status, True), found.text
    assert "set-cookie" not in found.headers
    assert get(read, "/?q=library").status_code == 200


def test_names_and_words_are_text(read: Explored) -> None:
    video_id = read.id(HOSTILE)
    paths = ("/", "/?q=word", f"/video/{video_id}", f"/compare/{video_id}?a=m&b=n", f"/captions/{video_id}/m")
    for path in paths:
        found = get(read, path)
        assert found.status_code == 200
        assert "<img" not in found.text
        assert HARM not in found.text
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert found.headers["x-content-type-options"] == "nosniff"
    assert html.escape(HOSTILE, quote=False)[:20] in get(read, "/").text


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        (None, 200, 0, None),
        ("bytes=0-99", 206, 0, 99),
        ("bytes=100-", 206, 100, None),
        ("bytes=-50", 206, -50, None),
        ("bytes=99999999-", 416, 0, 0),
        ("bytes=5-2", 200, 0, None),
        ("bytes=-", 200, 0, None),
        ("pages=1-2", 200, 0, None),
        ("bytes=0-1,5-6", 200, 0, None),
    ],
)
def test_a_video_by_its_bytes(
    read: Explored, asked: str | None, status: int, first: int, last: int | None
) -> None:
    whole = (read.platform.videos / "talk.mp4").read_bytes()
    found = get(read, f"/media/{read.id('talk.mp4')}", **({"Range": asked} if asked else {}))
    assert found.status_code == status
    if status != 416:
        assert found.content == whole[first : None if last is None else last + 1]
        assert found.headers["content-type"] == "video/mp4"


def test_another_version_is_not_played_for_this_one(explored: Explored) -> None:
    (explored.platform.videos / "talk.mp4").write_bytes(b"something else")
    assert get(explored, f"/media/{explored.id('talk.mp4')}").status_code == 410
    sound = get(explored, f"/audio/{explored.id('talk.mp4')}", Range="bytes=0-3")
    assert (sound.status_code, sound.content) == (206, b"fLaC")
    assert get(explored, f"/audio/{explored.id(HOSTILE)}").status_code == 404


def test_captions(read: Explored) -> None:
    found = get(read, f"/captions/{read.id('talk.mp4')}/m")
    assert found.headers["content-type"].startswith("text/vtt")
    assert found.text.startswith("WEBVTT")
    assert "every day from nine" in found.text


def test_what_failed(read: Explored) -> None:
    shown = get(read, "/status").text
    assert shown.count("<bdi>broken.mp4</bdi>") == 2
    # Sums are right beyond what fits into eight bits.
    assert "<td>1\N{NO-BREAK SPACE}016</td>" in shown
    assert f"/assets/transcripts/n?partition={read.batch}" in shown


def verdict(
    explored: Explored, right: str, place: tuple[float, str, str], said: str = "", **more: str
) -> int:
    start_s, a, b = place
    form = {
        "a": "m",
        "b": "n",
        "start_s": str(start_s),
        "heard_a": a,
        "heard_b": b,
        "right": right,
        "said": said,
    }
    answer = requests.post(
        f"{explored.url}/compare/{explored.id('talk.mp4')}",
        data=form,
        headers={"Origin": explored.url} | more,
        timeout=PATIENCE_S,
        allow_redirects=False,
    )
    return int(answer.status_code)


def test_verdicts_become_what_is_said(explored: Explored) -> None:
    """Once all places are judged, they are the next comparison's reference, whichever is A."""

    def compared(pair: Pair) -> dict[str, Any]:
        ((batch, states),) = not_compared(explored.store, pair)
        found = compare_batch(explored.store, pair, batch)
        assert found
        publish(explored.store, found, states)
        assert not list(not_compared(explored.store, pair))
        rows = {row["video_id"]: row for row in found.videos.to_pylist()}
        return dict(rows[explored.id("talk.mp4")])

    first = (2.0, "is", "was")
    before = compared(Pair("m", "n"))
    places = [(place["word_a"], place["word_b"], place["is_right"]) for place in before["diff"]]
    assert before["reference_words"] is None
    assert {right for _, _, right in places} == {None}
    assert verdict(explored, "a", first) == 303
    half = compared(Pair("m", "n"))
    assert half["reference_words"] is None
    assert half["diff"][0]["is_right"] == "a"
    shown = get(explored, f"/compare/{explored.id('talk.mp4')}?a=m&b=n").text
    rest = [
        (float(start), a, b)
        for start, a, b in zip(
            *(_values(shown, name) for name in ("start_s", "heard_a", "heard_b")), strict=True
        )
    ]
    assert rest[0] == first
    for place in rest[1:]:
        assert verdict(explored, "neither", place, "some light") == 303
    judged = compared(Pair("m", "n"))
    assert judged["reference_words"]
    turned = compared(Pair("n", "m"))
    assert turned["reference_words"] == judged["reference_words"]
    assert (turned["substitutions_a"], turned["deletions_a"]) == (
        judged["substitutions_b"],
        judged["deletions_b"],
    )
    assert verdict(explored, "b", first) == 303  # who judges again thinks better of it
    kept = verdicts_of(explored.store, Pair("m", "n"), explored.batch, explored.id("talk.mp4"))
    assert len(kept) == len(rest)
    assert {v.said for v in kept if v.start_s == 2.0} == {"was"}


def _values(page: str, name: str) -> list[str]:
    return [html.unescape(part.split('"')[0]) for part in page.split(f'name="{name}" value="')[1:]]


def test_verdicts_that_are_none(explored: Explored) -> None:
    place = (2.0, "is", "was")
    assert verdict(explored, "a", (3.0, "is", "was")) == 409
    assert verdict(explored, "both", place) == 400
    assert verdict(explored, "neither", place, "a" * 2001) == 400
    assert verdict(explored, "a", place, Origin="http://elsewhere.example") == 403
    assert not verdicts_of(explored.store, Pair("m", "n"), explored.batch)


def test_another_sites_name_is_not_answered_to(read: Explored) -> None:
    assert get(read, "/", Host="elsewhere.example").status_code == 421


def test_who_is_elsewhere_needs_the_token(published: Explored) -> None:
    with exploring(published.platform, "--host", "0.0.0.0") as address:
        parts = urlsplit(address)
        base = f"http://127.0.0.1:{parts.port}"
        assert requests.get(base, timeout=PATIENCE_S).status_code == 401
        assert requests.get(f"{base}/static/explorer.js", timeout=PATIENCE_S).status_code == 401
        assert requests.get(f"{base}/?token=wrong", timeout=PATIENCE_S).status_code == 401
        visit = requests.Session()
        first = visit.get(f"{base}/?q=library&{parts.query}", timeout=PATIENCE_S, allow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "?q=library")
        assert "HttpOnly" in first.headers["set-cookie"]
        assert parts.query.removeprefix("token=") not in first.headers["set-cookie"]
        again = visit.get(f"{base}/?q=library&{parts.query}", timeout=PATIENCE_S)
        assert "token" not in again.url
        visit.cookies.set("prefs", '{"a": 1}')  # another program's, on the same host
        assert "<mark>library</mark>" in visit.get(f"{base}/?q=library", timeout=PATIENCE_S).text
        token = parts.query.removeprefix("token=")
        bearer = {"Authorization": f"Bearer {token}"}
        assert requests.get(base, headers=bearer, timeout=PATIENCE_S).status_code == 200


def test_links_lead_to_the_regions_own_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from resources.aws import S3
    from resources.source_s3 import S3Bucket

    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for bucket, host in (("videos", "videos.s3.eu-south-1"), ("a.b", "s3.eu-south-1")):
        client = S3(region_name="eu-south-1").get_client()
        video = Video(source=f"s3://{bucket}", key="a.mp4", version="1", size_bytes=1, modified_at=NOW)
        link = S3Bucket(f"s3://{bucket}", client).link(video, "video/mp4")
        assert link
        assert urlsplit(link).netloc == f"{host}.amazonaws.com"
        assert "X-Amz-Signature" in link


def test_nothing_is_published_yet(tmp_path: Path) -> None:
    with exploring(Platform(tmp_path)) as url:
        found = requests.get(url, timeout=PATIENCE_S)
    assert found.status_code == 503
    assert "run asr run" in found.text


def test_a_bucket_is_played_from_where_it_is(
    published: Explored, bucket: str, s3_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that the browser follows; the page allows media from there."""
    import boto3
    from starlette.requests import Request

    from explorer.media import link_origins, video_response
    from resources.settings import Settings
    from resources.source import Source

    key = f"talks/{HOSTILE}"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"0123456789")
    monkeypatch.setenv("ASR_SOURCE_URL", f"s3://{bucket}/talks")
    source = Source.of(Settings.from_env())
    (video,) = source.backend.list()
    answer = video_response(source, video, Request({"type": "http", "method": "GET", "headers": []}))
    link = answer.headers["location"]
    assert answer.status_code == 302
    assert quote(HOSTILE.partition(" ")[0]) in link
    played = requests.get(link, headers={"Range": "bytes=2-4"}, timeout=PATIENCE_S)
    assert (played.status_code, played.content) == (206, b"234")
    assert played.headers["content-type"] == "video/mp4"
    assert link_origins(source, published.store) == ["{0.scheme}://{0.netloc}".format(urlsplit(link))]
    store = published.store.__class__(url=f"s3://{bucket}/data")
    store.put("audio/x.flac", b"fLaC")
    signed = store.link("audio/x.flac")
    assert signed
    assert requests.get(signed, timeout=PATIENCE_S).content == b"fLaC"
