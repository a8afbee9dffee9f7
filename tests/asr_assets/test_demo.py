"""What asr demo promises, on the samples, through Dagster into SQL."""

import re

import pytest
from dagster import AssetKey, DagsterInstance

from speech.normalizing import TimedWord
from speech.scoring import Score, score
from tests.conftest import SAID, Platform

pytestmark = pytest.mark.xdist_group("demo")


def heard(demo: Platform, name: str, table: str = "words_current") -> list[TimedWord]:
    query = f"SELECT word, start_s FROM {table} WHERE video_key = '{name}' ORDER BY word_index"
    rows = (line.rsplit(",", 1) for line in demo.sql(query))
    return [TimedWord(word, float(start)) for word, start in rows]


def test_every_spoken_word_stands_in_sql(demo: Platform) -> None:
    assert int(demo.sql("SELECT count(*) FROM words_current")[0]) > 100
    total = sum((score(said, heard(demo, name)) for name, said in SAID.items()), Score())
    assert total.wer <= 0.20
    assert total.median_start_error_s is not None
    assert total.median_start_error_s <= 0.060


def test_words_of_delayed_audio_stand_on_the_videos_timeline(demo: Platform) -> None:
    result = score(SAID["delayed_audio.mp4"], heard(demo, "delayed_audio.mp4"))
    assert result.hits >= 15
    assert max(map(abs, result.start_errors_s)) <= 0.100


@pytest.mark.parametrize(
    ("video", "status", "reason", "model_status", "model_reason"),
    [
        ("weather.mp4", "ok", "", "ok", ""),
        ("silent.mp4", "ok", "", "empty", "no_speech"),
        ("soundless.mp4", "empty", "no_audio", "empty", "no_audio"),
        ("corrupt.mp4", "failed", "unreadable_media", "failed", "unreadable_media"),
    ],
)
def test_every_video_ends_as_a_row_for_every_model(
    demo: Platform, video: str, status: str, reason: str, model_status: str, model_reason: str
) -> None:
    rows = demo.sql(
        "SELECT v.status, v.reason, t.status, t.reason, t.model_version "
        "FROM videos_current v JOIN transcripts t USING (video_id) "
        f"WHERE video_key = '{video}' ORDER BY model_version"
    )
    ends = f"{status},{reason},{model_status},{model_reason}"
    assert rows == [f"{ends},micro_whisper", f"{ends},pocketsphinx"]


def test_both_arms_of_the_comparison_are_there_and_differ(demo: Platform) -> None:
    arms = [
        demo.sql(f"SELECT word FROM words WHERE model_version = '{model}' ORDER BY video_id, word_index")
        for model in ("pocketsphinx", "micro_whisper")
    ]
    assert all(len(arm) > 100 for arm in arms)
    assert arms[0] != arms[1]
    assert demo.sql("SELECT DISTINCT model_version FROM words_current") == ["pocketsphinx"]


def test_what_the_container_says_is_in_the_table(demo: Platform) -> None:
    rows = demo.sql(
        "SELECT video_key, container, video_codec, audio_codec, round(audio_start_s, 2), decode_errors "
        "FROM videos_current WHERE video_key IN ('delayed_audio.mp4', 'soundless.mp4') ORDER BY ALL"
    )
    assert rows == ["delayed_audio.mp4,mov,h264,aac,1.5,0", "soundless.mp4,mov,h264,,,"]


def test_segments_tile_the_words(demo: Platform) -> None:
    assert demo.sql(
        "SELECT count(*) FROM segments JOIN ("
        "  SELECT video_id, model_version, segment_index, string_agg(word, ' ' ORDER BY word_index) AS joined"
        "  FROM words GROUP BY ALL"
        ") USING (video_id, model_version, segment_index) WHERE text != joined"
    ) == ["0"]
    assert demo.sql("SELECT sum(words) FROM segments") == demo.sql("SELECT count(*) FROM words")


def test_the_demo_says_what_it_found(demo: Platform) -> None:
    shown = demo.must("demo")
    assert "words, those of pocketsphinx, stand in words_current" in shown
    assert "unreadable_media" in shown
    assert "micro_whisper knows 83 words" in shown


def test_pictures_are_there_and_the_event_log_holds_no_words_and_no_names(demo: Platform) -> None:
    """What Dagster has once taken in cannot be erased from it."""
    with DagsterInstance.from_config(str(demo.root / "data" / "dagster")) as instance:
        shown = instance.get_latest_materialization_event(AssetKey(["transcripts", "pocketsphinx"]))
        assert shown
        assert shown.asset_materialization
        assert {"words_over_sound", "batch"} <= set(shown.asset_materialization.metadata)
        grown = instance.get_latest_materialization_event(AssetKey("word_timings"))
        assert grown
        assert grown.asset_materialization
        assert "over_time" in grown.asset_materialization.metadata
    written = "".join(
        re.sub(r"data:image/png;base64,[\w+/=]+", "", file.read_text("utf-8", "replace"))
        for file in (demo.root / "data" / "dagster").rglob("*")
        if file.is_file()
    )
    assert "words_over_sound" in written
    words = demo.sql("SELECT DISTINCT word_normalized FROM words WHERE length(word_normalized) > 6")
    assert len(words) > 5
    assert [word for word in words if word in written] == []
    assert [key for key in demo.sql("SELECT video_key FROM videos") if key in written] == []


def test_running_again_changes_nothing(demo: Platform) -> None:
    before = demo.tables()
    snapshot = (demo.root / "data" / "snapshots" / "latest.json").read_text()
    demo.must("run")
    assert demo.tables() == before
    assert (demo.root / "data" / "snapshots" / "latest.json").read_text() == snapshot
