"""Two model versions compared, promoted, rolled back and chosen by rule: through Dagster, on real speech."""

import fcntl
import json
import shutil
from pathlib import Path

import pytest
from dagster import AssetCheckKey, AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from resources.champions import roll_back
from resources.store import Store
from tests.conftest import KNOWN, ROOT, SAMPLES, Platform

MODELS = f"""
[fast]
engine = "pocketsphinx"
champion = true
options = {{ fwdflat = false, maxhmmpf = 3000, topn = 2, ds = 2 }}

[micro]
engine = "whisper"
weights = "{ROOT / "micro_whisper" / "checkpoint"}"

[policy.prices]
cpu = 0.1

[policy.gate]
videos = 8
slower = 1000
later_ms = 1000
"""
WORDS = "SELECT * FROM words_current ORDER BY ALL"
COMPARED = "FROM comparison WHERE condition = 'all'"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """Eight videos of words that micro_whisper knows, heard by it and by a champion who hears them badly."""
    root = tmp_path_factory.mktemp("known")
    (root / "models.toml").write_text(MODELS)
    platform = Platform(root, {"ASR_MODELS": str(root / "models.toml")})
    for name in KNOWN:
        for file in SAMPLES.glob(f"{Path(name).stem}.*"):
            shutil.copy2(file, platform.videos / file.name)
            shutil.copy2(file, platform.videos / f"again_{file.name}")
    platform.must("run")
    return platform


pytestmark = [pytest.mark.long, pytest.mark.xdist_group("comparison")]


def test_a_run_ends_with_the_evidence(known: Platform) -> None:
    (row,) = known.sql(
        "SELECT videos, referenced, reference_words, wer_a > 0.1, wer_b < 0.01, wer_difference_high < 0, "
        f"p_value < 0.05, rtfx_a > 0, peak_mb_b > 100, round(cost_a * rtfx_a, 4), normalizer {COMPARED}"
    )
    assert row == "8,8,260,True,True,True,True,True,True,0.1,whisper-normalizer 0.1.15"
    codecs = known.sql(
        "SELECT value, sum(reference_words), sum(substitutions_b + deletions_b + insertions_b) "
        "FROM comparison_by_condition WHERE condition = 'codec' GROUP BY ALL ORDER BY ALL"
    )
    assert [line.split(",")[0] for line in codecs] == ["aac", "mp3", "opus"]
    assert "a" not in known.sql("SELECT DISTINCT is_right FROM word_diff")  # it knows all of these words
    assert known.sql("SELECT sum(edits) = (SELECT count(*) FROM word_diff) FROM comparison_by_video") == [
        "True"
    ]


def test_what_is_compared_is_not_compared_again_and_says_the_same_when_it_is(known: Platform) -> None:
    objects = sorted((known.root / "data" / "comparisons").rglob("*.parquet"))
    before = [(file, file.stat().st_mtime_ns, file.read_bytes()) for file in objects]
    summary = known.sql("FROM comparison")
    assert before
    known.must("compare", "fast", "micro")
    assert [(file, file.stat().st_mtime_ns, file.read_bytes()) for file in objects] == before
    for file in objects:
        file.unlink()
    known.must("compare", "fast", "micro")
    assert [file.read_bytes() for file in objects] == [data for *_, data in before]
    assert known.sql("FROM comparison") == summary


def test_the_ui_has_plots_and_no_words(known: Platform) -> None:
    with DagsterInstance.from_config(str(known.root / "data" / "dagster")) as instance:
        event = instance.get_latest_materialization_event(AssetKey("model_comparison"))
    assert event
    assert event.asset_materialization
    metadata = event.asset_materialization.metadata
    assert {"micro_against_fast", "micro_against_fast_differences", "micro_against_fast_report"} <= set(
        metadata
    )
    for word in known.sql("SELECT DISTINCT word FROM words WHERE length(word) > 6"):
        assert word not in str({key: value for key, value in metadata.items() if "differences" not in key})


def test_promoted_by_evidence_and_rolled_back(known: Platform) -> None:
    before = known.sql(WORDS)
    assert known.sql("SELECT DISTINCT model_version FROM words_current") == ["fast"]
    page = known.root / "evidence.html"
    shown = known.must("promote", "micro", "--html", str(page))
    assert "NO" not in shown
    assert known.sql("SELECT DISTINCT model_version FROM words_current") == ["micro"]
    model, why, who, fingerprint, evidence = known.sql(
        "SELECT model_version, why, who, fingerprint, evidence FROM champions ORDER BY number DESC LIMIT 1"
    )[0].split(",", 4)
    assert (model, why, bool(who)) == ("micro", "promoted", True)
    assert fingerprint == known.sql("SELECT DISTINCT model_fingerprint FROM transcripts_current")[0]
    recorded = json.loads(evidence[1:-1].replace('""', '"'))
    assert [finding["holds"] for finding in recorded["findings"]] == [True] * 5
    assert recorded["comparison"]["wer_b"] < 0.01
    assert "micro" in page.read_text()
    assert "champion since" in known.must("models")
    assert known.asr("promote", "micro").stderr.startswith("asr: micro is champion already")

    worse = known.asr("promote", "fast")
    assert worse.returncode == 1
    assert "fast stays a challenger of micro: the upper end of the WER's difference" in worse.stderr
    assert known.sql("SELECT count(*) FROM champions") == ["2"]

    # Killed between the champions' log and the load: the same command ends what it began.
    store, data = Store(url=f"file://{known.root / 'data'}"), known.root / "data"
    roll_back(store, "me", ["fast"])
    assert known.sql("SELECT DISTINCT model_version FROM words_current") == ["micro"]
    known.must("rollback")
    assert len(list((data / "champions").iterdir())) == 3
    assert known.sql(WORDS) == before
    again = known.asr("rollback")
    assert again.returncode == 1
    assert "fast is the first champion" in again.stderr


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ("videos = 9", "number of videos with a reference is 8, and has to be at least 9"),
        ("videos = 8\nslower = 0.0001", "time for an hour of audio is"),
        ("videos = 8\nlater_ms = 50\nslower = 100", None),  # how fast it is is the machine's affair
    ],
)
def test_the_gate_says_why_not(known: Platform, gate: str, reason: str | None) -> None:
    """micro is better than the champion in every way but the one that is asked for."""
    models = known.root / "gate.toml"
    models.write_text(MODELS[: MODELS.index("[policy.gate]")] + f"[policy.gate]\nmargin = 0\n{gate}\n")
    platform = Platform(known.root, {"ASR_MODELS": str(models)})
    done = platform.asr("promote", "micro")
    if reason is None:
        assert done.returncode == 0, done.stderr
        platform.must("rollback")
    else:
        assert done.returncode == 1
        assert f"asr: micro stays a challenger of fast: the {reason}" in done.stderr


def test_a_definition_changed_under_an_old_name_is_no_evidence(known: Platform) -> None:
    models = known.root / "changed.toml"
    models.write_text(MODELS.replace("[micro]\n", '[micro]\nprompt = "Dagster"\n'))
    done = Platform(known.root, {"ASR_MODELS": str(models)}).asr("promote", "micro")
    assert done.returncode == 1
    assert "no current video was heard by both fast and micro as they are now defined" in done.stderr
    known.must("compare", "fast", "micro")


def test_twins_are_taken_in_and_compared_and_go_with_their_original(known: Platform) -> None:
    totals = known.sql(COMPARED)
    opus = ("degrade", "--video", "again_school", "--condition", "opus_6k")
    written = known.must(*opus, "--condition", "noise_0db")
    assert written.count("written") == 2
    known.must("run")
    assert known.must(*opus).count("there already") == 1
    assert known.sql(
        "SELECT value, videos, reference_words FROM comparison WHERE condition = 'condition' ORDER BY ALL"
    ) == ["noise_0db,1,32", "opus_6k,1,32", "original,8,260"]
    assert known.sql(COMPARED) == totals  # which are about originals
    codecs = (
        "SELECT value, count(*) FROM comparison_by_condition "
        "WHERE condition = 'codec' AND model_a = 'fast' GROUP BY ALL"
    )
    assert set(known.sql(codecs)) == {"aac,4", "mp3,2", "opus,2"}
    home = known.root / "data" / "dagster"
    with DagsterInstance.from_config(str(home)) as instance, (home / "daemon.lock").open("w") as daemon:
        fcntl.flock(daemon, fcntl.LOCK_SH)  # whose runs would be dead ones without it
        selection = frozenset({AssetKey("model_comparison")})  # as "Materialize" in the UI begins it
        comparing = DagsterRun("__ASSET_JOB", status=DagsterRunStatus.STARTED, asset_selection=selection)
        instance.add_run(comparing)
        refused = known.asr("erase", "again_school.mp4", "--yes")
        assert "the comparison of model versions is being worked on" in refused.stderr
        instance.delete_run(comparing.run_id)
    known.must("erase", "again_school.mp4", "--yes")
    assert known.sql("SELECT video_key FROM videos WHERE contains(video_key, 'school')") == ["school.mp4"]
    left = [file.read_bytes() for file in (known.root / "data").rglob("*") if file.is_file()]
    assert not any(b"again_school" in data for data in left)
    assert not list((known.root / "data" / "reports").glob("*"))
    assert not list((known.root / "data" / "comparison_summaries").rglob("*.json"))
    known.must("compare", "fast", "micro")
    assert known.sql(f"SELECT videos {COMPARED}") == ["7"]


def test_a_champion_changed_under_its_name_is_noticed(known: Platform) -> None:
    assert known.sql("SELECT count(*) FROM champion_changed") == ["0"]
    (known.root / "models.toml").write_text(MODELS.replace("topn = 2", "topn = 3"))
    done = known.asr("run")
    assert done.returncode == 0
    assert "fast was changed under its name since it became champion" in " ".join(done.stderr.split())
    assert known.sql("SELECT count(*) FROM champion_changed") == ["7"]
    with DagsterInstance.from_config(str(known.root / "data" / "dagster")) as instance:
        check = AssetCheckKey(AssetKey("word_timings"), "champion_as_crowned")
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    assert record.status is AssetCheckExecutionRecordStatus.FAILED
    known.must("run")  # the check warns, and stops nothing
    refused = known.asr("promote", "micro")
    assert "the champion's definition is changed since it became champion" in refused.stderr
    assert "the champion's definition is" not in known.asr("promote", "micro", "--as-it-is").stderr
