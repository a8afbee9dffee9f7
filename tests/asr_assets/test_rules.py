"""Which model version hears a video: rules and shares, through Dagster."""

import json
import shutil

import pytest

from tests.asr_assets.test_comparison import MODELS
from tests.conftest import SAMPLES, Platform

pytestmark = pytest.mark.long
RULE = """
[[policy.rules]]
name = "gold"
model = "micro"
why = "accuracy"
tier = ["gold"]
"""
HEARD = (
    "SELECT video_key, model_version, t.status, rule "
    "FROM transcripts AS t JOIN videos_current USING (video_id) ORDER BY ALL"
)


def test_a_rule_sends_a_video_and_is_recorded(platform: Platform) -> None:
    models = platform.root / "models.toml"
    share_less = MODELS.replace("[micro]\n", "[micro]\nshare = 0\n")
    models.write_text(share_less + RULE)
    platform.add("street.mkv", "silent.mp4", "soundless.mp4")
    (platform.videos / "street.json").write_text(json.dumps({"metadata": {"tier": "gold"}}))
    platform.must("run")
    assert platform.sql(HEARD) == [
        "silent.mp4,fast,empty,",
        "silent.mp4,micro,left,",
        "soundless.mp4,fast,empty,",
        "soundless.mp4,micro,empty,",
        "street.mkv,fast,left,",
        "street.mkv,micro,ok,gold",
    ]
    assert platform.sql("SELECT DISTINCT video_key, model_version FROM words_current") == ["street.mkv,micro"]
    assert platform.must("verify")

    # Without the rule the champion hears what it has left; what was heard stays, and nobody chose it.
    models.write_text(share_less)
    platform.must("run")
    assert platform.sql(HEARD)[-2:] == ["street.mkv,fast,ok,", "street.mkv,micro,ok,"]
    assert platform.sql("SELECT DISTINCT model_version FROM words_current") == ["fast"]


def test_a_rule_that_comes_later_chooses_among_words_that_are_there(platform: Platform) -> None:
    models = platform.root / "models.toml"
    models.write_text(MODELS)
    platform.add("street.mkv")
    (platform.videos / "street.json").write_text(
        json.dumps(
            {"metadata": {"tier": "gold", "all": "x", "condition": "Anna Knee"}, "language": "Anna Knee"}
        )
    )
    platform.must("run")
    before = platform.sql("FROM words ORDER BY ALL")
    assert platform.sql("SELECT DISTINCT model_version FROM words_current") == ["fast"]
    assert platform.sql("SELECT condition, value FROM comparison") == [
        "all,all"
    ]  # what else is said is no total
    models.write_text(MODELS + RULE)
    platform.must("run")
    assert platform.sql(HEARD) == ["street.mkv,fast,ok,", "street.mkv,micro,ok,gold"]
    assert platform.sql("SELECT DISTINCT model_version FROM words_current") == ["micro"]
    assert platform.sql("FROM words ORDER BY ALL") == before
    log = [file.read_bytes() for file in (platform.root / "data" / "dagster").rglob("*") if file.is_file()]
    assert not any(b"Anna" in data for data in log)  # from which nothing can be erased
    models.write_text(MODELS)
    platform.must("run")
    assert platform.sql("SELECT DISTINCT model_version FROM words_current") == ["fast"]


@pytest.mark.parametrize("share", [0, 1])
def test_a_challenger_without_a_share_hears_nothing(platform: Platform, share: int) -> None:
    (platform.root / "models.toml").write_text(MODELS.replace("[micro]\n", f"[micro]\nshare = {share}\n"))
    shutil.copy2(SAMPLES / "silent.mp4", platform.videos)
    platform.must("run")
    heard = platform.sql("SELECT model_version FROM transcripts ORDER BY ALL")
    assert heard == ["fast", "micro"][: 1 + share]
    assert platform.must("verify")
