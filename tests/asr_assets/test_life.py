"""What happens to a video after it was taken in: failed and tried again, described, deleted, erased."""

import shutil
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from asr_assets.erasing import begin
from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.retries import TRIES, Pending, all_pending
from resources.source import Source
from resources.store import Store
from resources.verdicts import Verdict, judge
from tests.conftest import SAMPLES, Platform

SECRET = "delayed_audio.mp4"


def store_of(platform: Platform) -> Store:
    return Store(url=f"file://{platform.root / 'data'}")


def test_a_reason_that_passes_is_tried_again_and_a_permanent_one_is_not(platform: Platform) -> None:
    """A video that is listed, gone when it is read, and there again later."""
    platform.add("corrupt.mp4", "delayed_audio.mp4")
    source = Source(url=f"file://{platform.videos}", s3=S3())
    log = IngestLog(store_of(platform))
    log.append(list(source.look()))
    (platform.videos / "delayed_audio.mp4").unlink()
    platform.must("run")
    (pending,) = all_pending(store_of(platform))
    assert (pending.batch, pending.tries, len(pending.video_ids)) == ("00000001", 1, 1)
    platform.must("retry")
    assert next(all_pending(store_of(platform))).tries == 2
    shown = platform.must("failures")
    assert "corrupt.mp4" in shown
    assert "no: it would end the same" in shown

    shutil.copy2(SAMPLES / "delayed_audio.mp4", platform.videos)
    platform.must("retry")
    assert list(all_pending(store_of(platform))) == []
    assert platform.sql("SELECT count(*) > 15 FROM words_current") == ["True"]


def test_waiting_grows_and_ends(platform: Platform) -> None:
    from datetime import UTC, datetime

    ended = datetime(2026, 1, 1, tzinfo=UTC)
    plans = [
        Pending(batch="1", model="m", tries=tries, ended_at=ended, video_ids=("v",)).due_at
        for tries in range(1, TRIES + 2)
    ]
    assert plans[-1] is None
    waits = [(at - ended).total_seconds() / 60 for at in plans if at]
    assert waits == [5, 20, 80]


def test_what_stands_beside_a_video_is_in_sql(platform: Platform) -> None:
    platform.add("delayed_audio.mp4", "soundless.mp4", "silent.mp4")
    (platform.videos / "delayed_audio.srt").write_text("1\n00:00:01,650 --> 00:00:03,400\nThe picture\n")
    (platform.videos / "delayed_audio.json").write_text(
        '{"language": "en", "hints": ["picture"], "metadata": {"caller": 7}}'
    )
    (platform.videos / "silent.txt").write_bytes(b"\xff\xfe")
    (platform.videos / "silent.json").write_text('{"tongue": "en"}')
    (platform.videos / "silent.srt").write_text("no captions\n")
    (platform.videos / "silent.ctm").write_text("silent 1 nan 0.5 word\n")
    (platform.videos / "soundless.vtt").write_text(
        "WEBVTT\n\nNOTE nothing\n\n1\n00:01.000 --> 00:02.000 line:0\n{\\an8}<v A>Hello\n\n"
        "00:02.000 --> 00:03.000\nthere\n"
    )
    deep = "[" * 150 + "]" * 150
    (platform.videos / "soundless.json").write_text(f'{{"metadata": {{"deep": {deep}}}}}')
    # Beside this one there is no room for a name.
    shutil.copy2(SAMPLES / "silent.mp4", platform.videos / f"{'x' * 251}.mp4")
    done = platform.asr("run")
    assert "videos have a sidecar that could not be read" in done.stderr
    assert platform.sql(
        "SELECT language_hint, hints, reference, metadata ->> 'caller', sidecar_problem FROM videos "
        "WHERE video_key = 'delayed_audio.mp4'"
    ) == ["en,['picture'],The picture,7,"]
    (problem,) = platform.sql("SELECT sidecar_problem FROM videos WHERE video_key = 'silent.mp4'")
    assert ".json: tongue" in problem
    assert ".txt: " in problem
    assert ".srt: has no caption" in problem
    assert ".ctm: line 1 is not: recording, channel, start, length, word" in problem
    assert platform.sql("SELECT reference FROM videos WHERE video_key = 'soundless.mp4'") == ["Hello there"]
    assert platform.sql("SELECT count(*) FROM videos WHERE status <> 'failed'") == ["4"]


def test_a_deleted_video_leaves_the_current_words_and_its_history_stays(platform: Platform) -> None:
    platform.add("delayed_audio.mp4", "school.mp4")
    platform.must("run")
    before = platform.tables()
    (platform.videos / "school.mp4").unlink()
    platform.must("run")
    assert platform.tables() == before
    assert platform.sql("SELECT DISTINCT video_key FROM words_current") == ["delayed_audio.mp4"]
    platform.add("school.mp4")
    platform.must("run")
    assert len(platform.sql("SELECT DISTINCT video_key FROM words_current")) == 2
    assert platform.tables() == before


def test_verify_says_what_is_missing(platform: Platform) -> None:
    platform.add("delayed_audio.mp4")
    platform.must("run")
    platform.must("verify")
    platform.add("soundless.mp4")
    done = platform.asr("verify")
    assert done.returncode == 1
    assert "missing" in done.stdout


def everything_in(folder: Path) -> str:
    """All bytes below a folder as text, and what its Parquet and DuckDB files hold, unpacked."""
    texts = []
    for file in folder.rglob("*"):
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
            if file.suffix == ".parquet":
                texts.append(str(pq.read_table(file).to_pylist()) + str(pq.read_schema(file).metadata))
            if file.suffix == ".duckdb":
                with duckdb.connect(file, read_only=True) as connection:
                    for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                        texts.append(str(connection.table(table).fetchall()))
    return "\n".join(texts)


def test_nothing_is_left_of_an_erased_video(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.add(SECRET, "school.mp4")
    (platform.videos / "delayed_audio.txt").write_text("canary in the reference")
    platform.must("run")
    (word,) = platform.sql(
        "SELECT word FROM words_current GROUP BY word HAVING count(DISTINCT video_key) = 1 "
        f"AND any_value(video_key) = '{SECRET}' ORDER BY length(word) DESC LIMIT 1"
    )
    kept = platform.sql("SELECT * FROM words_current WHERE video_key = 'school.mp4' ORDER BY word_index")
    ((video_id, batch),) = [
        row.split(",")
        for row in platform.sql(f"SELECT video_id, batch FROM videos WHERE video_key = '{SECRET}'")
    ]
    said = {"said": "canary in a verdict", "heard": {"a": "x", "b": "y"}, "start_s": 1.0, "who": "somebody"}
    judge(store_of(platform), batch, Verdict.model_validate({"video_id": video_id, **said}))
    canaries = (word, "delayed_audio", "canary in the reference", "canary in a verdict")
    assert all(canary in everything_in(platform.root / "data") for canary in canaries)
    assert platform.asr("erase", "--yes", "nobody.mp4").returncode == 1
    platform.must("erase", "--yes", SECRET)
    for canary in canaries:
        assert canary not in everything_in(platform.root / "data")
    # It is still at the source, and stays away.
    platform.must("run")
    for canary in canaries:
        assert canary not in everything_in(platform.root / "data")
    assert kept == platform.sql(
        "SELECT * FROM words_current WHERE video_key = 'school.mp4' ORDER BY word_index"
    )
    assert platform.asr("verify").returncode == 0

    # An erasure that is cut off is ended by the next.
    store = store_of(platform)
    begin(store, IngestLog(store), f"file://{platform.videos}", ["school.mp4"])
    platform.must("erase", "--yes", "school.mp4")
    assert "school" not in everything_in(platform.root / "data")
    assert not IngestLog(store).being_erased()
    assert platform.sql("SELECT count(*) FROM videos") == ["0"]
