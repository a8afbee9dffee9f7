"""Who hears what, who is champion, and what of it stands in models.toml."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey

from resources.champions import Change, champion_log, crown_first, promote, reigning, roll_back
from resources.models import SpeechModels
from resources.observations import Video
from resources.policy import Policy
from resources.published import ExtractedVideo, Status
from resources.routing import Routing
from resources.sidecars import Sidecar
from resources.store import Store
from sensors.batches import Steps
from speech.errors import AsrError, ModelError
from speech.media import AudioInfo, MediaInfo
from speech.models import ModelVersion

BATCHES = [f"{number:08d}" for number in range(1, 401)]
MODELS = [
    ModelVersion("champion", "pocketsphinx"),
    ModelVersion("all", "pocketsphinx"),
    ModelVersion("some", "pocketsphinx", share=0.25),
    ModelVersion("none", "pocketsphinx", share=0.0),
]
RULES: dict[str, list[dict[str, Any]]] = {
    "rules": [
        {"name": "gold", "model": "none", "tier": ["gold"]},
        {"name": "long german", "model": "some", "language": ["de", "gsw"], "longer_than_s": 60},
        {"name": "short calls", "model": "none", "channels": 2, "shorter_than_s": 10},
    ]
}


def video(duration_s: float = 30.0, channels: int = 1, **sidecar: Any) -> ExtractedVideo:
    return ExtractedVideo(
        video=Video(source="s", key="k", version="1", size_bytes=1, modified_at=datetime.now(UTC)),
        status=Status.OK,
        media=MediaInfo("mov", duration_s, None, "aac", 1, 0, 0.0, 48000, channels),
        audio=AudioInfo(duration_s, 0, 0),
        sidecar=Sidecar(**sidecar),
    )


def routing(**policy: Any) -> Routing:
    return Routing("champion", MODELS, Policy.model_validate(policy))


@pytest.mark.parametrize(("model", "share"), [("champion", 1.0), ("all", 1.0), ("some", 0.25), ("none", 0.0)])
def test_challengers_hear_a_share_of_the_batches(model: str, share: float) -> None:
    taken = [batch for batch in BATCHES if routing().takes(model, batch)]
    assert len(taken) / len(BATCHES) == pytest.approx(share, abs=0.06)
    assert taken == [batch for batch in BATCHES if routing().hears(model, batch, video())]


def test_a_run_is_asked_for_the_models_that_are_to_hear_the_batch() -> None:
    steps = Steps([AssetKey("raw")], {model.name: AssetKey(model.name) for model in MODELS})
    asked = [len(steps.of(batch, routing())) for batch in BATCHES]
    assert set(asked) == {3, 4}
    assert all(AssetKey("none") in steps.of(batch, routing(**RULES)) for batch in BATCHES)


@pytest.mark.parametrize(
    ("about", "chosen", "rule"),
    [
        ({}, "champion", None),
        ({"metadata": '{"tier": "gold"}'}, "none", "gold"),
        ({"metadata": '{"tier": "gold"}', "language": "de", "duration_s": 90.0}, "none", "gold"),
        ({"language": "de", "duration_s": 90.0}, "some", "long german"),
        ({"language": "de", "duration_s": 60.0}, "champion", None),
        ({"language": "en", "duration_s": 90.0}, "champion", None),
        ({"channels": 2, "duration_s": 9.0}, "none", "short calls"),
        ({"channels": 2}, "champion", None),
    ],
)
def test_the_first_rule_that_matches_chooses(about: dict[str, Any], chosen: str, rule: str | None) -> None:
    found, now = video(**about), routing(**RULES)
    outside = next(batch for batch in BATCHES if not routing().takes("some", batch))
    heard = [model.name for model in MODELS if now.hears(model.name, outside, found)]
    assert heard == [name for name in ("champion", "all", "some", "none") if name in (chosen, "all")]
    by = now.rule(found)
    assert (by.name if by else None) == rule


def test_what_is_published_says_when_others_are_to_be_heard() -> None:
    before, after, other = routing(), routing(**RULES), routing(rules=RULES["rules"][:1])
    for name in ("champion", "all", "none"):
        assert before.state(name, BATCHES[0]) == ""
        assert len({now.state(name, BATCHES[0]) for now in (before, after, other)}) == 3
    priced = [rule | {"why": "price"} for rule in RULES["rules"]]
    assert routing(rules=priced).state("all", BATCHES[0]) == after.state("all", BATCHES[0])


ENTRY = '[a]\nengine = "pocketsphinx"\nchampion = true\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[policy]\nprice = 1", "policy.* is wrong: price"),
        ("[policy.gate]\nconfidence = 95", "gate.confidence"),
        ("[policy.prices]\ncpu = -1", "prices.cpu"),
        (
            '[[policy.rules]]\nname = "r"\nmodel = "b"\nchannels = 2',
            "'b', which is not switched on; these are: a",
        ),
        ('[[policy.rules]]\nname = "r"\nmodel = "a"\n' * 2, "two rules are called 'r'"),
        ('[[policy.rules]]\nname = "r"\nmodel = "a"\nwhy = "price"', "rule 'r' would send every video to a"),
        ('[[policy.rules]]\nname = "r"\nmodel = "a"\nlanguge = ["de"]', "languge"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(ENTRY + text)
    with pytest.raises(ModelError, match=sentence):
        _ = SpeechModels(path=str(tmp_path / "models.toml")).policy


def test_a_champion_that_is_switched_off_is_missed_at_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(ENTRY)
    models = SpeechModels(path=str(tmp_path / "models.toml"))
    assert Routing.of(models, store).champion == "a"
    store.put("transcripts/model=b/batch=00000001.parquet", b"")
    crown_first(store, "b", "fb")
    with pytest.raises(ModelError, match="b is champion, but switched off"):
        Routing.of(models, store)


def test_champions_follow_each_other_and_go_back_one_by_one(store: Store) -> None:
    with pytest.raises(AsrError, match="no champion yet"):
        roll_back(store, "me", "abc")
    store.put("transcripts/model=a/batch=00000001.parquet", b"")
    crown_first(store, "a", "fa")
    first = reigning(store)
    assert first
    assert (first.model, first.fingerprint, first.why) == ("a", "fa", Change.FIRST)
    with pytest.raises(AsrError, match="a is the first champion"):
        roll_back(store, "me", "abc")
    promote(store, "b", first, "me", "fb", {"wer": 0.1})
    with pytest.raises(AsrError, match="a was champion before, but is switched off"):
        roll_back(store, "me", ["b"])
    with pytest.raises(AsrError, match="somebody else"):
        promote(store, "c", first, "you", "fc", {})
    second = reigning(store)
    assert second
    promote(store, "c", second, "you", "fc", {})
    assert [roll_back(store, "me", "abc").model for _ in range(2)] == ["b", "a"]
    now = reigning(store)
    assert now
    assert (now.model, now.fingerprint, now.why, now.number) == ("a", "fa", Change.ROLLED_BACK, 5)
    with pytest.raises(AsrError, match="a is the first champion"):
        roll_back(store, "me", "abc")
    assert [entry.who for entry in champion_log(store).read_on()] == [None, "me", "you", "me", "me"]
