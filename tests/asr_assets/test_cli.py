"""The command line: data on stdout, one sentence on stderr, and an exit code one can rely on."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from resources.settings import as_url
from resources.store import Store
from resources.warehouse import TABLES
from tests.conftest import SAMPLES, Platform
from tests.resources.published import add_batch

pytestmark = pytest.mark.xdist_group("demo")

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nowhere"}
COMPARE = ["compare", "pocketsphinx", "micro_whisper"]


@pytest.mark.parametrize(
    ("arguments", "env", "sentence"),
    [
        (["transcribe", "nope.mp4"], {}, "nope.mp4: cannot be read"),
        (["transcribe", "."], {}, "not a regular file"),
        (["transcribe", __file__], {}, "cannot be opened as media"),
        (["transcribe", str(SAMPLES / "soundless.mp4")], {}, "has no audio stream"),
        (["transcribe", "--model", "nope", str(SAMPLES / "weather.mp4")], {}, "unknown model 'nope'"),
        (["transcribe", "--format", "srt", "a.mp4", "b.mp4"], {}, "one file at a time"),
        (["transcribe", "a.mp4"], {"ASR_MODELS": "/no/such.toml"}, "no such file"),
        (["sql", "SELEC 1"], {}, "syntax error"),
        (["sql", "SELECT nope FROM words"], {}, '"nope" not found'),
        (["sql", ""], {}, "no SQL statement"),
        (["sql", "SELECT 1; SELECT 2"], {}, "2 statements; give one"),
        (["sql", "SELECT 1 / (SELECT 'x'::INT)"], {}, "Could not convert"),
        (["sql", "DELETE FROM words"], {}, "only SELECT is possible here, not DELETE"),
        (["sql", "CREATE TEMP TABLE t AS SELECT 1"], {}, "only SELECT"),
        (["sql", "COPY words TO 'stolen.csv'"], {}, "only SELECT"),
        (["sql", "ATTACH 'other.duckdb'"], {}, "only SELECT"),
        (["sql", "SET lock_configuration = false"], {}, "only SELECT"),
        (["sql", "PRAGMA enable_external_access"], {}, ""),
        (["sql", "SELECT * FROM '/etc/passwd'"], {}, "does not exist"),
        (["sql", "SELECT * FROM 'secret.csv'"], {}, "disabled by configuration"),
        (["sql", "SELECT * FROM read_text('/etc/passwd')"], {}, "disabled by configuration"),
        (["sql", "SELECT * FROM glob('/*')"], {}, "disabled by configuration"),
        (["sql", "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1"], {}, "only SELECT"),
        (["transcribe", "--model", "whisper_tiny", "a.mp4"], OFFLINE, "hub is out of reach"),
        (["compare", "pocketsphinx"], {}, "two or more different"),
        (["compare", "pocketsphinx", "pocketsphinx"], {}, "two or more different"),
        (["compare", "pocketsphinx", "nope"], {}, "unknown model 'nope'"),
        (["compare", "pocketsphinx", "whisper_tiny"], {}, "was heard by both pocketsphinx and whisper_tiny"),
        ([*COMPARE, "--html", "/no/such/page.html"], {}, "page.html: cannot be written"),
        (["promote", "nope"], {}, "unknown model 'nope'"),
        (["promote", "whisper_tiny"], {}, "model whisper_tiny is not switched on"),
        (["promote", "pocketsphinx"], {}, "pocketsphinx is champion already"),
        (["promote", "micro_whisper", "--confidence", "95"], {}, "confidence: Input should be less than 1"),
        (["promote", "micro_whisper"], {"ASR_STORE_URL": "/tmp/no-such-asr-store"}, "no champion yet"),
        (["rollback"], {}, "pocketsphinx is the first champion"),
        (["degrade", "--condition", "fog"], {}, "fog: there is no such condition"),
        (["degrade", "--video", "nope"], {}, "no current video with sound and a reference"),
        (["export", "--video", "nope"], {}, "no current video with words"),
        (["export", "--model", "nope"], {}, "no current video with words"),
        (["export", "--out", "/proc/nope"], {}, "cannot be written"),
        (["dump", "--out", str(SAMPLES)], {}, "is not empty"),
        (["dump", "--out", "/proc/nope"], {}, "cannot be written"),
        (["search", ""], {}, "give one word or a phrase"),
        (["search", " ,.! "], {}, "give one word or a phrase"),
        (["search", "nobody says these words"], {}, "nobody says"),
        (["sql", "SELECT 1"], {"ASR_STORE_URL": "/tmp/no-such-asr-store"}, "there are no words yet"),
        (["run"], {"ASR_SOURCE_URL": "/no/such/folder"}, "cannot be read"),
        (["run"], {"ASR_SOURCE_URL": "ftp://host/x"}, "a source is a folder or s3://"),
        (["run"], {"ASR_STORE_URL": "nonsense://x"}, "ASR_STORE_URL"),
        (["run"], {"ASR_STORE_URL": __file__}, "cannot be written"),
        (["run"], {"DAGSTER_HOME": "/proc/nope"}, "cannot be written"),
        (["run"], {"ASR_SOURCE_URL": ".", "ASR_STORE_URL": "./inside"}, "lies inside the source"),
        (["run"], {"ASR_SOURCE_URL": "s3://b/x", "AWS_ENDPOINT_URL": "nonsense"}, "the AWS_* variables"),
        (["run"], {"ASR_SOURCE_URL": "s3://b/x", "AWS_PROFILE": "nope"}, "the AWS_* variables"),
        (["run"], {"ASR_CHAMPION": "nope"}, "ASR_CHAMPION is 'nope', but there are: pocketsphinx"),
        (["run", "--workers", "-1"], {}, "Invalid value"),
        (["nope"], {}, "No such command"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_sentence(
    demo: Platform, arguments: list[str], env: dict[str, str], sentence: str
) -> None:
    done = Platform(demo.root, env).asr(*arguments)
    assert done.returncode != 0
    assert done.stdout == ""
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (demo.root / "stolen.csv").exists()


def test_a_bucket_out_of_reach_is_one_sentence(platform: Platform, s3_env: dict[str, str]) -> None:
    platform.env |= s3_env | {"ASR_SOURCE_URL": "s3://no-such-bucket/videos"}
    done = platform.asr("run")
    assert done.returncode == 1
    assert "s3://no-such-bucket/videos/ cannot be listed" in done.stderr
    assert "Traceback" not in done.stderr


def test_transcribe_prints_nothing_but_data(demo: Platform) -> None:
    video = str(SAMPLES / "delayed_audio.mp4")
    document = json.loads(demo.must("transcribe", "--format", "json", video))
    words = document["words"]
    stored = demo.sql(
        "SELECT word, start_s, end_s, probability FROM words_current "
        "WHERE video_key = 'delayed_audio.mp4' ORDER BY word_index"
    )
    assert [f"{w['word']},{w['start_s']},{w['end_s']},{w['probability']}" for w in words] == stored
    assert demo.must("transcribe", video).startswith("the picture")
    assert demo.must("transcribe", "--format", "vtt", video).startswith("WEBVTT\n")


def test_transcribe_goes_on_after_a_bad_file_and_says_so(demo: Platform) -> None:
    micro = ("--model", "micro_whisper")
    done = demo.asr("transcribe", *micro, str(SAMPLES / "corrupt.mp4"), str(SAMPLES / "school.mp4"))
    assert done.returncode == 1
    assert "corrupt.mp4" in done.stderr
    assert "please close the green door." in done.stdout


def test_a_run_without_videos_says_that_there_are_no_words(platform: Platform) -> None:
    done = platform.asr("run")
    assert done.returncode == 0
    assert "There are no current words: pocketsphinx_fast is champion once" in done.stderr


def test_search_finds_a_phrase_with_its_time_and_context(demo: Platform) -> None:
    found = demo.must("search", "The RIGHT time!")
    assert "delayed_audio.mp4" in found
    assert "found at the right time" in found
    assert demo.must("search", "the", "--limit", "3").count(".m") == 3


def test_sql_formats(demo: Platform) -> None:
    query = "SELECT 1 AS a, NULL AS b, 'x,\"y' AS c, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS d"
    assert demo.must("sql", "--format", "csv", query) == 'a,b,c,d\n1,,"x,""y",2026-01-01 00:00:00+00:00\n'
    assert json.loads(demo.must("sql", "--format", "json", query))["b"] is None
    assert "NULL" in demo.must("sql", query)
    assert demo.must("sql", "--format", "csv", "SELECT word FROM words WHERE false") == "word\n"


def test_sql_is_interrupted_in_the_middle_of_a_query(demo: Platform) -> None:
    endless = demo.command("sql", "SELECT count(*) FROM range(10_000_000_000) a, range(1_000_000) b")
    with subprocess.Popen(endless, env=demo.environment, cwd=demo.root, stderr=subprocess.PIPE) as asking:
        time.sleep(4)
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=30)
    assert asking.returncode == 130
    assert b"Traceback" not in said


def test_a_rebuilt_warehouse_is_the_same_row_for_row(platform: Platform) -> None:
    add_batch(Store(url=as_url(platform.environment["ASR_STORE_URL"])), "a.mp4", "one two three")
    platform.must("rebuild")
    _, _, *shown = (line.split() for line in platform.must("rebuild").splitlines() if line.strip())
    assert {table: same for table, *_, same in shown} == dict.fromkeys(TABLES, "yes")


def test_models_lists_what_is_compared(demo: Platform) -> None:
    listed = demo.must("models")
    assert "champion since" in listed
    assert re.search("micro_whisper +whisper +enabled", listed)
    assert re.search("whisper_large_v3_turbo +whisper +disabled", listed)


def test_compare_says_who_hears_better_and_where(demo: Platform, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = demo.must(*COMPARE, "--html", str(page))
    rates = {
        value: [float(rate) for rate in re.findall(r"([\d.]+) %", line)]
        for value in ("micro_whisper", "open")
        for line in shown.splitlines()
        if line.split()[:2] == ["vocabulary", value]
    }
    assert rates["micro_whisper"][1] <= 2.0 < rates["micro_whisper"][0]
    assert rates["open"][0] <= 5.0 < rates["open"][1]
    assert "7 of 8 videos have a reference: 242 words" in shown
    assert "No difference can be shown between micro_whisper and pocketsphinx" in page.read_text()


def test_a_promotion_that_must_fail_fails_with_its_reason(demo: Platform) -> None:
    before = demo.sql("FROM words_current ORDER BY ALL")
    refused = demo.asr("promote", "micro_whisper")
    assert refused.returncode == 1
    assert "asr: micro_whisper stays a challenger of pocketsphinx: the number of videos" in refused.stderr
    assert "the upper end of the WER's difference (at 95% confidence) is +9" in refused.stderr
    assert demo.sql("FROM words_current ORDER BY ALL") == before
    assert demo.sql("SELECT count(*) FROM champions") == ["1"]


@pytest.mark.parametrize("form", ["text", "json", "srt", "vtt", "tsv", "ctm", "parquet"])
def test_export_writes_a_file_for_each_video(demo: Platform, tmp_path: Path, form: str) -> None:
    shown = demo.must("export", "--format", form, "--out", str(tmp_path / "out"))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(files) == 7
    assert files[0].startswith("delayed_audio-")
    assert all(name in shown for name in files)
    (one,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith("delayed"))
    assert b"picture" in one.read_bytes()


def test_export_of_one_video_by_a_challenger(demo: Platform, tmp_path: Path) -> None:
    where = ("--out", str(tmp_path / "out"), "--video", "school", "--model", "micro_whisper")
    demo.must("export", *where, "--format", "text")
    (file,) = (tmp_path / "out").iterdir()
    assert file.read_text().startswith("please close the green door.\n")


def test_doctor_finds_a_clone_well_and_says_what_is_wrong_elsewhere(demo: Platform, tmp_path: Path) -> None:
    well = demo.must("doctor")
    for line in ("ffmpeg", "torch", "device", "10 videos", "read and written", "model micro_whisper"):
        assert line in well
    models = '[far]\nengine = "whisper"\nchampion = true\nweights = "./nowhere"\n'
    (tmp_path / "models.toml").write_text(models)
    ill = {"ASR_MODELS": str(tmp_path / "models.toml"), "ASR_SOURCE_URL": "/no/such/folder"}
    done = Platform(demo.root, ill).asr("doctor")
    assert done.returncode == 1
    assert "/no/such/folder" in done.stdout
    assert "its weights should be in the folder" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_environment_takes_paths_and_urls(platform: Platform, tmp_path: Path) -> None:
    platform.add("silent.mp4")
    platform.env |= {
        "ASR_SOURCE_URL": f"file://{platform.videos}",
        "ASR_STORE_URL": "state",
        "ASR_WAREHOUSE": "elsewhere/w.duckdb",
        "DAGSTER_HOME": "home",
    }
    platform.must("run")
    assert (tmp_path / "elsewhere" / "w.duckdb").exists()
    assert (tmp_path / "state" / "ingest" / "00000001.json").exists()
    assert (tmp_path / "home" / "dagster.yaml").exists()
    assert not (tmp_path / "data").exists()
