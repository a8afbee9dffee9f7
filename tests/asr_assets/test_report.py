"""The report of a comparison, made from tables as the platform fills them, of a small world of its own."""

import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asr_assets import comparison_pictures as pictures
from asr_assets.report import clock, verdict, write_report
from resources import warehouse
from speech.comparing import Against, compare
from speech.errors import AsrError
from speech.normalizing import TimedWord

SCHEMA = Path(warehouse.__file__).with_name("schema.sql").read_text()
FINGERPRINTS = {"fingerprint_a": "aaaa", "fingerprint_b": "bbbb", "normalizer": "whisper-normalizer 0.1.15"}
PAIR = {"model_a": "old", "model_b": "new"}
EVIL = "<script>alert(1)</script>"
NOTHING = dict.fromkeys(("wer_difference", "wer_difference_low", "wer_difference_high", "p_value"))
LONG = "and " * 9 + "so it goes on for a while until the end of the tape"


@dataclass
class Video:
    """What is said in it (None: nobody knows), and what both heard."""

    key: str
    said: str | None
    a: str
    b: str
    conditions: dict[str, str] = field(default_factory=lambda: {"condition": "original", "codec": "aac"})


VIDEOS = (
    Video(
        "talks/weather.mp4",
        "It will rain on the coast",
        "it will rain on the ghost",
        "it will rain on the coast",
    ),
    Video(f"{EVIL}.mp4", f"red AT&T {LONG}", f"bread AT&T {LONG}", f"breath AT&T {LONG} now"),
    Video("unknown.mp4", None, "all <b> done", "all gone"),
)
TOTAL: dict[str, Any] = {
    **PAIR,
    **FINGERPRINTS,
    "condition": "all",
    "value": "all",
    "videos": 43,
    "referenced": 40,
    "audio_s": 7200.0,
    "reference_words": 5300,
    "wer_a": 0.101,
    "wer_b": 0.080,
    "wer_difference": -0.021,
    "wer_difference_low": -0.030,
    "wer_difference_high": -0.012,
    "confidence": 0.95,
    "p_value": 0.0012,
    "words_a": 5320,
    "words_b": 5290,
    "disagreement": 0.123,
    "cost_a": 0.0123,
    "cost_b": 0.0061,
}


def world(rows: tuple[dict[str, Any], ...] = (TOTAL,), videos: tuple[Video, ...] = VIDEOS) -> Any:
    """The tables in memory."""
    connection = duckdb.connect()
    connection.execute(SCHEMA)
    for row in rows:
        insert(connection, "comparison", row)
    for number, video in enumerate(videos):
        fill(connection, str(number), video)
    return connection


def insert(connection: duckdb.DuckDBPyConnection, table: str, row: dict[str, Any]) -> None:
    columns, values = ", ".join(row), ", ".join(f"${name}" for name in row)
    connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({values})", row)


def timed(text: str | None, late_s: float = 0.0) -> list[TimedWord]:
    words = enumerate((text or "").split())
    return [TimedWord(word, 0.5 * n + late_s, 0.5 * n + 0.4, 0.55 + n % 5 / 10) for n, word in words]


def fill(connection: duckdb.DuckDBPyConnection, video_id: str, video: Video) -> None:
    about = {"video_id": video_id, "source": "here", "video_key": video.key}
    when = {
        "modified_at": "2026-01-01",
        "content_version": "1",
        "batch": "1",
        "size_bytes": 1,
        "status": "ok",
    }
    insert(connection, "videos", about | when | {"duration_s": 61.25, "reference": video.said})
    seen = {"number": int(video_id), "kind": "new", "observed_at": "2026-01-01"}
    insert(connection, "observations", about | seen)
    heard = {"old": timed(video.a), "new": timed(video.b, late_s=0.02)}
    for transcript_id, (model, words) in enumerate(heard.items(), 2 * int(video_id)):
        of = {"transcript_id": transcript_id, "video_id": video_id, "model_version": model, "batch": "1"}
        how = {"model_fingerprint": FINGERPRINTS[f"fingerprint_{'ab'[transcript_id % 2]}"], "status": "ok"}
        insert(connection, "transcripts", of | how | {"words": len(words)})
        for index, word in enumerate(words):
            insert(
                connection,
                "spoken_words",
                {
                    "transcript_id": transcript_id,
                    "segment_index": 0,
                    "word_index": index,
                    "word": word.word,
                    "word_normalized": word.word,
                    "start_s": word.start_s,
                    "end_s": word.end_s,
                    "probability": word.probability,
                    "language": "en",
                    "timing_source": "made up",
                },
            )
    both = compare(heard["old"], heard["new"], timed(video.said, 0.01) if video.said else None, "en")
    row: dict[str, Any] = {
        **PAIR,
        **FINGERPRINTS,
        "video_id": video_id,
        "language": "en",
        "conditions": video.conditions,
        "words_a": both.between.words,
        "words_b": len(heard["new"]),
        "edits": both.between.errors,
        "start_differences_ms": [round(1000 * off) for off in both.between.start_errors_s],
    }
    for side, one in (("a", both.a), ("b", both.b)):
        row |= against(one, side) if one else {}
    insert(connection, "comparison_by_video", row)


def against(one: Against, side: str) -> dict[str, Any]:
    sure = one.confidence
    return {
        "reference_words": one.words.words,
        f"substitutions_{side}": one.words.substitutions,
        f"deletions_{side}": one.words.deletions,
        f"insertions_{side}": one.words.insertions,
        f"start_errors_{side}_ms": [round(1000 * off) for off in one.words.start_errors_s],
        "reference_characters": one.characters,
        f"character_errors_{side}": one.character_errors,
        f"log2_likelihood_{side}": sure.log2_likelihood,
        f"confidence_{side}": {"words": sure.words, "probability": sure.probability, "right": sure.right},
    }


def text_of(page: str) -> str:
    """What a reader sees, with single blanks."""
    body = page[page.index("<body>") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", body)).split())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {},
            "new makes 2.1 points fewer errors than old (WER 8.0 % against 10.1 %; 95 % interval "
            "-3.0 to -1.2 points, p = 0.001, 40 videos, 5 300 words).",
        ),
        (
            {
                "wer_b": 0.1014,
                "wer_difference": 0.0004,
                "wer_difference_low": 0.0001,
                "wer_difference_high": 0.0008,
                "p_value": 1e-9,
            },
            "new makes 0.04 points more errors than old (WER 10.14 % against 10.10 %; 95 % interval "
            "0.01 to 0.08 points, p < 0.001, 40 videos, 5 300 words).",
        ),
        (
            {"wer_difference_high": 0.002, "p_value": 0.09},
            "No difference can be shown between new and old (WER 8.0 % against 10.1 %; 95 % interval "
            "-3.0 to 0.2 points, p = 0.090, 40 videos, 5 300 words).",
        ),
        (
            {"wer_difference_low": None, "wer_difference_high": None, "p_value": None, "referenced": 1},
            "So few videos can show no difference (WER 8.0 % against 10.1 %; 1 video, 5 300 words).",
        ),
        (
            NOTHING | {"wer_a": None, "wer_b": None, "referenced": 0, "reference_words": None},
            "Nobody knows what is said in any of the 43 videos, and so which of the two is right. They "
            "differ in 12.3 % of old's words.",
        ),
    ],
    ids=["better", "worse", "no difference", "one video", "no references"],
)
def test_the_verdict_in_a_sentence(changed: dict[str, Any], said: str) -> None:
    total = TOTAL | changed
    assert " ".join(verdict(total).split()) == said
    assert said in text_of(write_report(world((total,)), "old", "new"))


def test_places_where_they_differ_say_who_is_right() -> None:
    page = write_report(world(), "old", "new")
    shown = text_of(page)
    assert "it will rain on the ghost coast✓" in shown
    assert '<span title="00:02.5"><del>ghost</del> <ins>coast</ins><b class="ins">✓</b></span>' in tight(page)
    # Neither is right at first; then A is, which has no word where B has one too many.
    assert '<del>bread</del> <ins>breath</ins> <b class="said">= red</b>' in tight(page)
    assert '<span class="del">∅</span><b class="del">✓</b> <ins>now</ins>' in tight(page)
    assert "at t and and and [… 14 …] the end of the tape" in shown
    # Nobody knows what is said there.
    assert "<del>done</del> <ins>gone</ins></span>" in tight(page)
    assert shown.index("weather.mp4") < shown.index("unknown.mp4")


def tight(page: str) -> str:
    return re.sub(r"\s*\n\s*", "", page)


def test_other_peoples_text_stays_text() -> None:
    rows = (TOTAL, TOTAL | {"condition": "speaker", "value": f"{EVIL} costs $1 or $2\x1b"})
    page = write_report(world(rows), "old", "new", findings=[(EVIL, "<i>1", "<i>2", False)])
    assert "<script" not in page
    assert "<i>" not in page
    assert html.escape(EVIL) in page
    assert "✗ no" in page


def test_the_page_needs_nothing_but_itself_and_is_the_same_twice() -> None:
    rows = (TOTAL, *UNDER)
    page = write_report(world(rows), "old", "new", findings=[("WER", "8.0 %", "10.1 %", True)])
    assert page == write_report(world(rows), "old", "new", findings=[("WER", "8.0 %", "10.1 %", True)])
    assert set(re.findall(r"https?://[^\"' <]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(src|href)=\"(?!#)|@import|url\((?!#)", page)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert page.count('role="img"') == 4
    assert len(page) < 200_000


def test_twins_and_words_of_former_definitions_are_left_out() -> None:
    twin = Video("twin.mp4", "one", "one", "two", {"condition": "noise_0db"})
    connection = world(videos=(*VIDEOS, twin))
    assert "twin.mp4" not in write_report(connection, "old", "new")
    connection.execute("UPDATE comparison_by_video SET fingerprint_b = 'former'")
    assert "They heard the same words in all videos." in text_of(write_report(connection, "old", "new"))


def test_only_so_many_videos() -> None:
    page = write_report(world(), "old", "new", videos=1)
    assert page.count("<article>") == 1
    assert "unknown.mp4" not in page


def test_what_was_not_compared_says_what_to_do() -> None:
    with pytest.raises(AsrError, match="asr compare new old"):
        write_report(world(), "new", "old")


def test_times_are_as_a_player_shows_them() -> None:
    assert [clock(seconds) for seconds in (0, 59.97, 3725.44)] == ["00:00.0", "01:00.0", "62:05.4"]


UNDER = tuple(
    TOTAL | {"condition": condition, "value": value, "videos": 5, "wer_a": 0.2, "wer_b": wer_b}
    for condition, value, wer_b in [
        ("condition", "original", 0.1),
        ("condition", "noise_0db", 0.4),
        ("condition", "noise_20db", 0.15),
        ("condition", "noise_10db", 0.2),
        ("condition", "mp3_16k", 0.18),
        ("condition", "telephone", 0.2),
        ("noise", "10 to 20 dB", 0.2),
        ("noise", "under 10 dB", 0.2),
        ("noise", "over 40 dB", 0.2),
        ("speaker", "名前 $x", 0.2),
    ]
)


def test_pictures_of_nothing_are_none() -> None:
    assert pictures.differences([TOTAL | NOTHING]) is None
    assert pictures.differences([]) is None
    assert pictures.wer_by_condition([TOTAL, UNDER[0]]) is None
    assert pictures.wer_by_condition([UNDER[1] | {"wer_a": None}]) is None
    assert pictures.calibration(None, None) is None
    assert (
        pictures.calibration({"words": [0] * 10, "probability": [0.0] * 10, "right": [0] * 10}, None) is None
    )
    assert pictures.start_errors([], []) is None
    assert pictures.start_errors([]) is None


def test_conditions_go_from_the_best_to_the_worst() -> None:
    figure = pictures.wer_by_condition(UNDER)
    assert figure
    shown = {
        axes.get_title(loc="left"): [label.get_text() for label in axes.get_xticklabels()]
        for axes in figure.axes
        if axes.get_title(loc="left")
    }
    assert shown == {
        "noise, dB": ["original", "20", "10", "0"],
        "mp3, kbit/s": ["original", "16"],
        "others": ["original", "telephone"],
    }


def test_classes_stand_in_their_order_and_all_videos_on_top() -> None:
    figure = pictures.differences([*UNDER, TOTAL])
    assert figure
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["all videos", "condition"]
    assert labels[-6:] == ["noise", "under 10 dB", "10 to 20 dB", "over 40 dB", "speaker", r"名前 \$x"]


def test_of_very_many_values_those_with_most_videos_are_drawn() -> None:
    many = [TOTAL | {"condition": "speaker", "value": str(n), "videos": n} for n in range(1000)]
    assert [row["value"] for row in pictures.largest([*many, TOTAL], 3)] == ["all", "998", "999"]
    figure = pictures.differences([*many, TOTAL])
    assert figure
    assert figure.get_figheight() < 20


def test_a_picture_for_the_ui_and_one_for_a_page() -> None:
    figure = pictures.start_errors([10, -20, 300], [5, 6])
    assert figure
    assert pictures.as_markdown(figure, "starts").value.startswith("![starts](data:image/png;base64,")
    svg = pictures.as_svg(figure, "starts & ends")
    assert svg.startswith("<svg ")
    assert 'aria-label="starts &amp; ends"' in svg
    assert not re.search(r"<\?xml|<!DOCTYPE|<metadata|xlink", svg)
