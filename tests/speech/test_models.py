"""models.toml: what an entry may say, and what changes its fingerprint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from speech.errors import ModelError
from speech.models import ModelVersion, read_models
from speech.pipeline import Transcriber
from tests.conftest import ROOT

GOOD = '[a]\nengine = "pocketsphinx"\nchampion = true\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "cannot be read as TOML"),
        ('["a-b"]\nengine = "pocketsphinx"\n', "letters, digits and underscores"),
        ('["a/../b"]\nengine = "pocketsphinx"\n', "letters, digits and underscores"),
        ('[a]\nengine = "nope"\n', "known engines: pocketsphinx"),
        ("a = 1\n", "not a table"),
        (GOOD + 'colour = "red"\n', "unknown settings"),
        (GOOD + 'weights = "a/b"\n', "has weights, but its engine carries its own"),
        ('[a]\nengine = "whisper"\nchampion = true\n', "lacks weights: a folder"),
        (GOOD + "max_window_s = 31\n", "max_window_s: .* less than or equal to 30"),
        (GOOD + "language = 3\n", "language"),
        ('[a]\nengine = "pocketsphinx"\n', "exactly one"),
        (GOOD + GOOD.replace("[a]", "[b]"), "exactly one"),
        (GOOD + "enabled = false\n", "exactly one"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "models.toml").write_text(text)
    with pytest.raises(ModelError, match=message) as refused:
        read_models(tmp_path / "models.toml")
    assert "models.toml" in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ASR_MODELS"):
        read_models(tmp_path / "nope.toml")


@pytest.mark.parametrize(
    ("change", "changes_words"),
    [
        ({"options": {"beam": 1e-20}}, True),
        ({"max_window_s": 12.0}, True),
        ({"language": "de"}, True),
        ({"description": "other"}, False),
        ({"enabled": False}, False),
        ({"name": "other"}, False),
        ({"weights": "a/b"}, True),
        ({"weights": "a/b", "revision": "1"}, True),
    ],
)
def test_the_fingerprint_covers_what_changes_words(change: dict[str, Any], changes_words: bool) -> None:
    model = ModelVersion("m", "pocketsphinx")
    assert (replace(model, **change).fingerprint != model.fingerprint) is changes_words


def test_a_folder_of_weights_is_relative_to_the_file_and_known_by_its_content(tmp_path: Path) -> None:
    text = '[m]\nengine = "whisper"\nchampion = true\nweights = "./{}"\n'
    seen = []
    for name, content in (("one", b"a"), ("two", b"a"), ("three", b"b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
        (tmp_path / "models.toml").write_text(text.format(name))
        model = read_models(tmp_path / "models.toml")["m"]
        assert model.weights == str(tmp_path / name)
        seen.append(model.fingerprint)
    assert seen[0] == seen[1] != seen[2]
    (tmp_path / "three" / "model.safetensors").write_bytes(b"a")
    assert model.fingerprint == seen[0]


def test_weights_of_the_hub_are_pinned_or_say_that_they_are_not() -> None:
    for model in read_models(ROOT / "models.toml").values():
        assert not model.weights or model.weights.startswith("/") or len(model.revision) in (0, 40)


def test_a_clone_compares_two_versions_that_truly_differ() -> None:
    enabled = [model for model in read_models(ROOT / "models.toml").values() if model.enabled]
    assert len(enabled) >= 2
    assert len({model.fingerprint for model in enabled}) == len(enabled)


def test_an_option_the_engine_does_not_know_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="model odd: pocketsphinx refuses"):
        Transcriber(ModelVersion("odd", "pocketsphinx", options={"no_such_option": 1}))
