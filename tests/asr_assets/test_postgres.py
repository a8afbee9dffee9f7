"""PostgreSQL, where it is set: what there is of it in Dagster, and that the commands keep it up to date."""

from pathlib import Path

import pytest
from dagster import DefaultSensorStatus

from asr_assets.definitions import build
from benchmarks.postgres import differences
from resources.settings import Settings
from resources.store import Store
from tests.asr_assets.test_life import everything_in
from tests.conftest import Platform

pytestmark = pytest.mark.xdist_group("postgres")


def test_asset_job_and_sensor_are_there_where_a_database_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_POSTGRES_URL", "postgresql://somebody:canary@127.0.0.1/words")
    defs = build(Settings.from_env())
    graph = defs.resolve_asset_graph()
    (node,) = [node for node in graph.asset_nodes if node.key.to_user_string() == "postgres_words"]
    assert (node.group_name, node.kinds) == ("warehouse", {"postgres"})
    assert [key.to_user_string() for key in node.parent_keys] == ["word_timings"]
    assert defs.resolve_job_def("copy_words").asset_layer.executable_asset_keys == {node.key}
    assert defs.resolve_sensor_def("words_for_postgres").default_status is DefaultSensorStatus.RUNNING


def test_run_and_erase_reach_postgres_and_its_password_stays_where_it_is(
    platform: Platform, postgres: str
) -> None:
    import psycopg

    url = postgres.replace("postgres:@", "postgres:canary@")
    platform.env["ASR_POSTGRES_URL"] = url
    platform.add("delayed_audio.mp4", "soundless.mp4")
    platform.must("run")
    store = Store(url=f"file://{platform.root / 'data'}")
    assert differences(url, store, Path("/nonexistent")) == 0
    with psycopg.connect(url) as connection:
        picture = "SELECT video_key FROM asr.words_current WHERE word_normalized = 'picture'"
        assert connection.execute(picture).fetchone() == ("delayed_audio.mp4",)
    platform.must("erase", "--yes", "delayed_audio.mp4")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT video_key FROM asr.videos").fetchall() == [("soundless.mp4",)]
        assert connection.execute("SELECT count(*) FROM asr.words").fetchone() == (0,)
    assert differences(url, store, Path("/nonexistent")) == 0

    platform.env["ASR_POSTGRES_URL"] = "postgresql://postgres:canary@127.0.0.1:1/words"
    done = platform.asr("run")
    assert done.returncode == 1
    assert "postgres_words failed: PostgreSQL on 127.0.0.1: connection failed" in done.stderr
    assert "canary" not in done.stderr + everything_in(platform.root / "data")
