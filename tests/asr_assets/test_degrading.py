"""``asr degrade``: what is written beside what, and what is left alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asr_assets.degrading import Twin, twins
from resources import layout
from resources.sidecars import About
from resources.store import Store
from speech.degrading import CONDITIONS
from speech.errors import AsrError
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.types import SAMPLE_RATE
from tests.conftest import SAMPLES

TIMED, PLAIN, TWIN, UNKNOWN, FAILED = (letter * 32 for letter in "abcde")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse with two videos of which is known what is said, and three to be passed over."""
    with duckdb.connect() as connection:
        connection.execute(
            """
            CREATE TABLE videos_current (
                video_id VARCHAR, video_key VARCHAR, batch VARCHAR, status VARCHAR, reference VARCHAR,
                reference_starts_s DOUBLE[], reference_ends_s DOUBLE[], language_hint VARCHAR,
                hints VARCHAR[], metadata VARCHAR
            )
            """
        )
        about = json.dumps({"room": {"number": 7}, "kind": "lecture"})
        times = [0.5, 1.25], [1.0, 1.5]
        rows: list[list[Any]] = [
            [
                TIMED,
                "talks/Anna's talk é.mp4",
                "00000001",
                "ok",
                "Good morgen,",
                *times,
                "de",
                ["Anna"],
                about,
            ],
            [PLAIN, "plain.wav", "00000002", "ok", "good evening", None, None, None, [], None],
            [TWIN, "t.mp3", "00000002", "ok", "hm", None, None, None, None, '{"twin_of": "plain.wav"}'],
            [UNKNOWN, "unknown.mp4", "00000002", "ok", None, None, None, None, None, None],
            [FAILED, "failed.mp4", "00000002", "failed", "hm", None, None, None, None, None],
        ]
        connection.executemany(f"INSERT INTO videos_current VALUES ({', '.join('?' * 10)})", rows)
        yield connection


@pytest.fixture
def to(tmp_path: Path) -> Store:
    return Store(url=f"file://{tmp_path / 'to'}")


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """The platform's store, with the sound of both."""
    with MediaDecoder() as decoder, LocalFile(SAMPLES / "weather.mp4") as source:
        decoder.extract(source, "weather.mp4", tmp_path / "audio.flac")
    for video_id in (TIMED, PLAIN):
        store.put(layout.audio(video_id), tmp_path / "audio.flac")
    return store


def written(to: Store) -> set[str]:
    return {found.key for found in to.list("")}


def test_twins_lie_beside_what_is_said_in_them(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store, tmp_path: Path
) -> None:
    made = list(twins(connection, filled, to, ["mp3_16k", "telephone"]))
    plain, timed = "plain-bbbbbbbbbbbb", "Anna-s-talk-aaaaaaaaaaaa"
    assert made == [
        Twin("plain.wav", "mp3_16k", f"degraded/mp3_16k/{plain}.mp3", written=True),
        Twin("plain.wav", "telephone", f"degraded/telephone/{plain}.wav", written=True),
        Twin("talks/Anna's talk é.mp4", "mp3_16k", f"degraded/mp3_16k/{timed}.mp3", written=True),
        Twin("talks/Anna's talk é.mp4", "telephone", f"degraded/telephone/{timed}.wav", written=True),
    ]
    assert written(to) - {twin.key for twin in made} == {
        f"degraded/{condition}/{stem}{suffix}"
        for condition in ("mp3_16k", "telephone")
        for stem, reference in ((plain, ".txt"), (timed, ".ctm"))
        for suffix in (reference, ".json")
    }
    assert to.get(f"degraded/mp3_16k/{plain}.txt") == b"good evening\n"
    ctm = b"aaaaaaaaaaaa 1 0.500 0.500 Good\naaaaaaaaaaaa 1 1.250 0.250 morgen,\n"
    assert to.get(f"degraded/mp3_16k/{timed}.ctm") == ctm
    about = About.model_validate_json(to.get(f"degraded/mp3_16k/{timed}.json") or b"")
    assert (about.language, about.hints) == ("de", ("Anna",))
    twin_of = {"twin_of": "talks/Anna's talk é.mp4", "condition": "mp3_16k", "kind": "mp3", "level": 16}
    assert about.metadata == {"room": {"number": 7}, **twin_of}
    twin_of = {"twin_of": "plain.wav", "condition": "telephone", "kind": "telephone"}
    assert json.loads(to.get(f"degraded/telephone/{plain}.json") or b"") == {"metadata": twin_of}
    for twin in made:
        path = tmp_path / "to" / twin.key
        with MediaDecoder() as decoder, LocalFile(path) as source:
            decoder.extract(source, path.name, tmp_path / "twin.flac")
        assert read_flac(tmp_path / "twin.flac").shape[-1] / SAMPLE_RATE == pytest.approx(13.4, abs=0.1)


def test_all_conditions_unless_some_are_named(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store
) -> None:
    made = list(twins(connection, filled, to, phrase="plain"))
    assert [twin.condition for twin in made] == list(CONDITIONS)


def test_what_is_there_is_left_alone(connection: duckdb.DuckDBPyConnection, filled: Store, to: Store) -> None:
    first = list(twins(connection, filled, to, ["noise_5db"]))
    to.put(first[0].key, b"somebody else's")
    before = {found.key: found.etag for found in to.list("")}
    filled.delete_below("audio")  # nothing of it is read either
    second = list(twins(connection, filled, to, ["noise_5db"]))
    assert [(twin.key, twin.written) for twin in second] == [(twin.key, False) for twin in first]
    assert {found.key: found.etag for found in to.list("")} == before


def test_twins_are_the_same_wherever_they_are_made(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store, tmp_path: Path
) -> None:
    elsewhere = Store(url=f"file://{tmp_path / 'elsewhere'}")
    made = [list(twins(connection, filled, place, ["noise_0db"])) for place in (to, elsewhere)]
    assert made[0] == made[1]
    sounds = {place.get(twin.key) for place in (to, elsewhere) for twin in made[0]}
    assert len(sounds) == 2  # the same sound, but each video has a noise of its own


def test_sidecars_are_there_before_the_media_is_noticed(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    there_before: list[set[str]] = []
    create = Store.create

    def noticed(self: Store, key: str, data: bytes) -> bool:
        there_before.append(written(self))
        return create(self, key, data)

    monkeypatch.setattr(Store, "create", noticed)
    (twin,) = twins(connection, filled, to, ["opus_6k"], batch="00000001")
    stem = twin.key.removesuffix(".ogg")
    assert there_before == [{f"{stem}.ctm", f"{stem}.json"}]


def test_times_that_nobody_would_read_are_left_out(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr_assets.degrading.MAX_BYTES", 50)
    (twin,) = twins(connection, filled, to, ["telephone"], phrase="Anna")
    stem = twin.key.removesuffix(".wav")
    assert written(to) == {twin.key, f"{stem}.json", f"{stem}.txt"}
    assert to.get(f"{stem}.txt") == b"Good morgen,\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"conditions": ["fog"]}, "fog: there is no such condition"),
        ({"phrase": "unknown"}, "no current video with sound and a reference"),
        ({"phrase": "failed"}, "no current video with sound and a reference"),
        ({"phrase": "t.mp3"}, "no current video with sound and a reference"),
        ({"batch": "00000003"}, "no current video with sound and a reference"),
    ],
)
def test_nothing_to_do_is_said(
    connection: duckdb.DuckDBPyConnection, filled: Store, to: Store, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(AsrError, match=said):
        list(twins(connection, filled, to, **asked))
    assert not written(to)
