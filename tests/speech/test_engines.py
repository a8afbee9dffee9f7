"""The engines beside whisper: CTranslate2's twin of it, and CTC."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.corpus import converted
from speech.engines import Asked, Engine, Hardware, Heard, load
from speech.errors import ModelError, WorkerBroken
from speech.models import ModelVersion
from speech.normalizing import TimedWord
from speech.scoring import Score, score
from speech.types import SAMPLE_RATE, Window
from speech.workers import Here
from tests.conftest import KNOWN, ROOT, SAID, SAMPLES
from tests.speech.test_pipeline import mono_of

pytestmark = pytest.mark.xdist_group("whisper")
ONE = Hardware(device="cpu", threads=1)


@pytest.fixture(scope="module")
def ct2(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    folder = converted(ROOT / "micro_whisper" / "checkpoint", tmp_path_factory.mktemp("ct2") / "checkpoint")
    return ModelVersion("ct2", "faster_whisper", weights=str(folder))


def total(heard: Sequence[Heard], names: Sequence[str]) -> Score:
    return sum(
        (
            score(SAID[name], [TimedWord(word.text, word.start_s) for word in one.words])
            for name, one in zip(names, heard, strict=True)
        ),
        Score(),
    )


def cut(tmp_path: Path, count: int = 3) -> list[Window]:
    return [Window(mono_of(SAMPLES / name, tmp_path), 0.0) for name in KNOWN[:count]]


@pytest.mark.parametrize(
    ("options", "runtime"),
    [
        ({}, {}),
        ({"beams": 3}, {}),
        ({"compute_type": "int8"}, {}),
        ({}, {"num_workers": 2, "cpu_threads": 1}),
        ({}, {"device_index": [0], "local_files_only": True}),
    ],
    ids=str,
)
def test_ctranslate2_hears_the_same_words(
    ct2: ModelVersion, options: dict[str, Any], runtime: dict[str, Any], tmp_path: Path
) -> None:
    heard = load(replace(ct2, options=options, runtime=runtime), ONE).transcribe(cut(tmp_path), Asked())
    found = total(heard, KNOWN[:3])
    assert found.wer < 0.05
    assert np.median(np.abs(found.start_errors_s)) < 0.05
    for one in heard:
        assert one.language == "en"
        assert -0.5 < one.log_probability < 0
        starts = [word.start_s for word in one.words]
        assert starts == sorted(starts)
        assert all(0 <= word.probability <= 1 and word.end_s >= word.start_s for word in one.words)


def test_what_changes_no_words_changes_no_fingerprint(ct2: ModelVersion) -> None:
    assert replace(ct2, runtime={"num_workers": 4}).fingerprint == ct2.fingerprint
    assert replace(ct2, options={"beams": 2}).fingerprint != ct2.fingerprint


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"options": {"compute_type": "int2"}}, "cannot be loaded on cpu by CTranslate2"),
        ({"options": {"wings": 2}}, r"unknown options \['wings'\]"),
        ({"runtime": {"num_workers": 0}}, "its runtime are wrong: num_workers"),
        ({"weights": str(ROOT / "micro_whisper" / "checkpoint")}, "there are no weights as model.bin"),
        ({"language": "xx"}, "knows no language 'xx'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(ct2: ModelVersion, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^model ct2.*{sentence}"):
        load(replace(ct2, **change), ONE)


def test_a_draw_is_a_windows_own(tmp_path: Path) -> None:
    """At a temperature, too, words do not depend on the batch."""
    micro = ModelVersion("micro", "whisper", weights=str(ROOT / "micro_whisper" / "checkpoint"))
    windows = cut(tmp_path)
    hot = Asked(temperature=1.0)
    engine = load(micro, ONE)
    together = [words(heard) for heard in engine.transcribe(windows, hot)]
    assert together == [words(engine.transcribe([window], hot)[0]) for window in windows]


def words(heard: Heard) -> list[str]:
    return [word.text for word in heard.words]


@pytest.fixture(scope="module", params=["layer", "group"])
def letters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec2 of the smallest kind, with random weights."""
    import json

    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder = tmp_path_factory.mktemp("ctc")
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINSHRDLU"]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    torch.manual_seed(3)
    config = Wav2Vec2Config(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        feat_extract_norm=request.param,
        pad_token_id=0,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    network = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        network.lm_head.weight.mul_(40)  # so that it says something
    network.save_pretrained(folder)
    Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(return_attention_mask=request.param == "layer"),
        Wav2Vec2CTCTokenizer(str(folder / "vocab.json")),
    ).save_pretrained(folder)
    return folder


def test_ctc_says_letters_and_when(letters: Path, tmp_path: Path) -> None:
    engine: Engine = load(ModelVersion("letters", "ctc", weights=str(letters)), ONE)
    windows = [*cut(tmp_path, 2), Window(np.zeros(SAMPLE_RATE, np.int16), 0.0)]
    together = engine.transcribe(windows, Asked())
    assert any(heard.words for heard in together)
    for window, heard in zip(windows, together, strict=True):
        edges = [edge for word in heard.words for edge in (word.start_s, word.end_s)]
        assert edges == sorted(edges)
        assert all(0 <= edge <= window.duration_s for edge in edges)
        assert all(word.text == word.text.strip() != "" and 0 < word.probability <= 1 for word in heard.words)
        assert words(engine.transcribe([window], Asked())[0]) == words(heard)


@pytest.mark.case(37)
def test_what_is_no_number_is_no_silence(letters: Path, tmp_path: Path) -> None:
    worker = Here(ModelVersion("letters", "ctc", weights=str(letters)), ONE)
    engine: Any = worker.listener.engine
    with engine._torch.no_grad():
        engine._network.lm_head.weight[3, 3] = float("nan")
    with pytest.raises(WorkerBroken, match="no numbers"):
        worker.hear(cut(tmp_path, 1), Asked())


def test_what_is_no_ctc_checkpoint_is_one_sentence() -> None:
    micro = ModelVersion("micro", "ctc", weights=str(ROOT / "micro_whisper" / "checkpoint"))
    with pytest.raises(ModelError, match=r"^model micro: .* is no CTC checkpoint that can be loaded"):
        load(micro, ONE)
