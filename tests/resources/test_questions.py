"""What analysts ask, of a few words whose answers one can see."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from resources import loader, snapshot
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.search import Filters, search
from resources.store import Store
from resources.warehouse import Warehouse, contents
from speech.errors import QueryError
from speech.types import Segment, Transcript, Word, normalize_word
from tests.resources.published import NOWHERE, add_videos, load, publish, publish_words, spoken


def timed(*words: Word, duration_s: float = 10.0) -> Transcript:
    return Transcript("en", duration_s, (Segment(words),))


HEARD = {
    "stop.mp4": spoken("Don\u2019t stop! | STOP, now"),
    "laugh.mp4": spoken("ha ha, ha HA well ha"),
    "thanks.mp4": spoken("so thank you Thank you! thank you all | no no no no"),
    "late.mp4": timed(Word("late", 5, 6, 0.9, "t"), Word("again", 6.5, 7.0, 0.9, "t")),
    "call.mp4": timed(
        Word("hello", 0.5, 4.0, 0.9, "t", channel=0),
        Word("hi", 1.0, 2.0, 0.9, "t", channel=1),
        Word("bye", 9.0, 10.0, 0.9, "t", channel=1),
    ),
    "unsure.mp4": timed(
        *(Word(f"w{n}", n, n + 1, p, "t") for n, p in enumerate((0.9, 0.4, 0.3, 0.9, 0.9, 0.2, 0.9, 0.9)))
    ),
    "empty.mp4": spoken("", duration_s=12.0),
    "failed.mp4": None,
    "gone.mp4": spoken("so no so no so no stop now ha"),
    "old.mp4": spoken("stop now ha ha ha"),
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    root = tmp_path_factory.mktemp("questions")
    store = Store(url=f"file://{root / 'store'}")
    batch, ids = add_videos(store, *HEARD)
    publish(store, batch, dict(zip(ids, HEARD.values(), strict=True)))
    publish(store, batch, dict.fromkeys(ids, spoken("stop now stop now stop now", 7.0)), model="challenger")
    newer, (video_id,) = add_videos(store, "old.mp4", version="2")
    publish(store, newer, {video_id: spoken("fresh")})
    gone = Video(source="s3://b", key="gone.mp4", version="1", size_bytes=1, modified_at=datetime.now(UTC))
    IngestLog(store).append([], gone=[gone])
    load(Warehouse(path=str(root / "w.duckdb")), store)
    with snapshot.read(store, NOWHERE) as connection:
        yield connection


@pytest.mark.parametrize(
    ("phrase", "places"),
    [
        ("stop", [("stop.mp4", 1), ("stop.mp4", 2)]),
        ("stop STOP now", [("stop.mp4", 1)]),  # across segments
        (" “Don't—” stop, ", [("stop.mp4", 0)]),
        ("ha ha ha", [("laugh.mp4", 0), ("laugh.mp4", 1)]),
        ("ha well ha", [("laugh.mp4", 3)]),
        ("ha ha ha ha ha", []),
        ("now stop", []),
        ("fresh", [("old.mp4", 0)]),
        ("don", []),
        ("so no", []),
        ("' or 1=1 --", []),
        ("", []),
        ("… —", []),
    ],
)
def test_said(connection: duckdb.DuckDBPyConnection, phrase: str, places: list[tuple[str, int]]) -> None:
    found = connection.sql("FROM said(?) JOIN transcripts_current USING (transcript_id)", params=[phrase])
    assert found.select("video_key, word_index").order("ALL").fetchall() == places
    if places:
        assert search(connection, phrase, 100).count == len(places)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("FROM phrase('stop now')", [("stop.mp4", 2.0, 3.5, 0.9, "Don\u2019t stop! STOP, now")]),
        ("FROM phrase('stop now', context := 0)", [("stop.mp4", 2.0, 3.5, 0.9, "STOP, now")]),
        ("FROM phrase('ha well', context := 1)", [("laugh.mp4", 3.0, 4.5, 0.9, "ha HA well ha")]),
        ("FROM phrase('ha ha ha', at_most := 1, context := 0)", [("laugh.mp4", 0.0, 2.5, 0.9, "ha ha, ha")]),
        ("FROM phrase('w1 w2 w3', context := 1)", [("unsure.mp4", 1.0, 4.0, 0.3, "w0 w1 w2 w3 w4")]),
        ("FROM phrase('')", []),
        (
            "FROM words_per_minute WHERE video_key IN ('late.mp4', 'empty.mp4', 'failed.mp4', 'gone.mp4')",
            [("empty.mp4", "m", 0, 12.0, 0.0), ("late.mp4", "m", 2, 10.0, 12.0)],
        ),
        ("FROM silences(4) WHERE video_key = 'late.mp4'", [("late.mp4", 0.0, 5.0, 5.0)]),
        (
            "FROM silences(at_least_s := 0.5) WHERE video_key IN ('late.mp4', 'call.mp4')",
            [
                ("call.mp4", 0.0, 0.5, 0.5),
                ("call.mp4", 4.0, 9.0, 5.0),  # one side speaks all the while that the other is silent
                ("late.mp4", 0.0, 5.0, 5.0),
                ("late.mp4", 6.0, 6.5, 0.5),
                ("late.mp4", 7.0, 10.0, 3.0),
            ],
        ),
        ("FROM silences(12) WHERE video_key < 'f'", [("empty.mp4", 0.0, 12.0, 12.0)]),
        ("FROM silences(0.1) WHERE video_key IN ('failed.mp4', 'gone.mp4')", []),
        (
            "FROM to_review()",
            [
                ("unsure.mp4", 1.0, 3.0, 0.3, 2, "w0 w1 w2 w3 w4 w5"),
                ("unsure.mp4", 5.0, 6.0, 0.2, 1, "w2 w3 w4 w5 w6 w7"),
            ],
        ),
        ("FROM to_review(below := 0.3, context := 0)", [("unsure.mp4", 5.0, 6.0, 0.2, 1, "w5")]),
        ("FROM to_review(0.1)", []),
        (
            "FROM loops()",
            [
                ("laugh.mp4", 0.0, 3.5, 4, "ha"),
                ("thanks.mp4", 1.0, 6.5, 3, "thank you"),
                ("thanks.mp4", 8.0, 11.5, 4, "no"),
            ],
        ),
        ("FROM loops(at_least := 4) WHERE video_key = 'thanks.mp4'", [("thanks.mp4", 8.0, 11.5, 4, "no")]),
        ("FROM loops(5)", []),
        (
            "FROM talk_share WHERE video_key IN ('call.mp4', 'late.mp4', 'empty.mp4')",
            [("call.mp4", 0, 3.5, 1, 0.636), ("call.mp4", 1, 2.0, 2, 0.364), ("late.mp4", None, 1.5, 2, 1.0)],
        ),
    ],
)  # fmt: skip
def test_questions(
    connection: duckdb.DuckDBPyConnection, question: str, answer: list[tuple[object, ...]]
) -> None:
    found = connection.sql(question)
    names = ", ".join(name for name in found.columns if name != "video_id")
    assert found.select(names).order("ALL").fetchall() == answer


@pytest.mark.parametrize(
    "text",
    [
        "Don\u2019t, 'tis rock'n'roll '' _a_ a_b «quoi» ¿qué? 3.14 1,000 50% a-b … — 😀 👍🏽ok",
        "É E\u0301 STRASSE Straße ẞ İstanbul i\u0307 Å \u212b Ω x\u0300y K 三 ٣",
        "हिन्दी नमस्ते ไทย 日本語 각 \u1112\u1161\u11ab مُحَمَّد שָׁלוֹם",
        "a\u200db a\u00adb a\u00a0b a\u2009b \u200bzero\ta\n\nb ",
        "",
    ],
)
def test_words_are_looked_for_in_the_form_in_which_they_are_kept(
    connection: duckdb.DuckDBPyConnection, text: str
) -> None:
    kept = [word for word in map(normalize_word, text.split()) if word]
    assert connection.execute("SELECT words_in(?)", [text]).fetchall() == [(kept,)]


def test_a_search_without_a_word_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(QueryError, match="no word in what you search for"):
        search(connection, " —! ", 10)


@pytest.mark.parametrize("run", [1, 6, 1000])
def test_a_search_finds_the_same_wherever_its_words_are_posted(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: int
) -> None:
    monkeypatch.setattr(loader, "POSTINGS_RUN", run)
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    places = set()

    def found(phrase: str) -> list[str]:
        with snapshot.read(store, NOWHERE) as connection:
            ((posted, waiting),) = connection.execute(
                "SELECT (SELECT count(*) > 0 FROM postings), (SELECT count(*) > 0 FROM not_in_postings)"
            ).fetchall()
            places.add((posted, waiting))
            return [hit.video_key for hit in search(connection, phrase, 100).hits]

    videos = []
    for n in range(4):
        batch, (video_id,) = add_videos(store, f"{n}.mp4")
        publish_words(store, batch, video_id, "we say it again")
        load(warehouse, store)
        videos.append((batch, video_id))
        assert found("say it") == [f"{m}.mp4" for m in range(n + 1)]
    publish_words(store, *videos[1], "we never said so")
    load(warehouse, store)
    before = warehouse.contents()
    for _ in range(2):
        assert found("say it") == ["0.mp4", "2.mp4", "3.mp4"]
        assert found("never said") == ["1.mp4"]
        with warehouse.exclusive() as path:
            snapshot.publish(store, path, warehouse.rebuild(store, lambda done, total: None))
    assert (
        places
        == {1: {(True, False)}, 6: {(False, True), (True, False), (True, True)}, 1000: {(False, True)}}[run]
    )
    assert warehouse.contents() == before
    with snapshot.read(store, NOWHERE) as connection:
        assert contents(connection) == before


@pytest.mark.parametrize(
    ("phrase", "filters", "count"),
    [
        ("stop now", Filters(), 1),
        ("stop now", Filters(model="challenger"), 24),
        ("now stop", Filters(model="challenger", video="call"), 2),
        ("fresh", Filters(video="old"), 1),
        ("fresh", Filters(language="de"), 0),
        ("w1 w2", Filters(at_least=0.3), 1),
        ("w1 w2", Filters(at_least=0.31), 0),
        ("hi", Filters(video="call.mp4"), 1),
        ("hi", Filters(video="%"), 0),
    ],
)
def test_where_to_look(
    connection: duckdb.DuckDBPyConnection, phrase: str, filters: Filters, count: int
) -> None:
    found = search(connection, phrase, 50, filters)
    assert (found.count, len(found.hits)) == (count, count)
    assert sum(times for _, times in found.over_time) == count
    if count > 1:
        rest = search(connection, phrase, 50, filters, offset=1)
        assert (rest.count, rest.hits) == (count, found.hits[1:])
