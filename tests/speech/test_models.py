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
    ],
)
def test_the_fingerprint_covers_what_changes_words(change: dict[str, Any], changes_words: bool) -> None:
    model = ModelVersion("m", "pocketsphinx")
    assert (replace(model, **change).fingerprint != model.fingerprint) is changes_words


def test_a_clone_compares_two_versions_that_truly_differ() -> None:
    enabled = [model for model in read_models(ROOT / "models.toml").values() if model.enabled]
    assert len(enabled) >= 2
    assert len({model.fingerprint for model in enabled}) == len(enabled)


def test_an_option_the_engine_does_not_know_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="model odd: pocketsphinx refuses"):
        Transcriber(ModelVersion("odd", "pocketsphinx", options={"no_such_option": 1}))
