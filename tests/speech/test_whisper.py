"""Engine whisper, on the small Whisper of our own: right words, at the right time, or one sentence."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from speech.alignment import align
from speech.engines import Asked, Hardware, load
from speech.engines.whisper_text import Lettering, Written
from speech.errors import ModelError
from speech.models import ModelVersion, read_models
from speech.normalizing import TimedWord
from speech.pipeline import Transcriber, transcribe_file
from speech.reading import Recording
from speech.scoring import Score, score
from speech.types import SAMPLE_RATE, Transcript, Window, Word
from speech.voice import windows
from tests.conftest import KNOWN, ROOT, SAID, SAMPLES
from tests.speech.test_pipeline import mono_of

pytestmark = pytest.mark.xdist_group("whisper")

MICRO = read_models(ROOT / "models.toml")["micro_whisper"]
ONE = Hardware(threads=1)  # as many tests run side by side as there are cores
WER = 0.02  # what it may get wrong of its own words
CHECKPOINT = ROOT / "micro_whisper" / "checkpoint"


@pytest.fixture(scope="module")
def micro() -> Iterator[Transcriber]:
    with Transcriber(MICRO, hardware=ONE) as transcriber:
        yield transcriber


def wer(name: str, words: Sequence[Word]) -> float:
    return score(SAID[name], [TimedWord(word.text, word.start_s) for word in words]).wer


def test_its_own_words_are_heard_and_timed(micro: Transcriber) -> None:
    total = Score()
    for name in KNOWN:
        heard = transcribe_file(micro, SAMPLES / name)
        total += score(SAID[name], [TimedWord(word.text, word.start_s) for word in heard.words])
        assert all(word.timing_source == "cross_attention" for word in heard.words)
        assert all(word.end_s > word.start_s for word in heard.words)
        assert all(0.3 < word.probability <= 1 for word in heard.words)
    assert total.wer <= WER
    errors = np.abs(total.start_errors_s)
    assert np.median(errors) <= 0.025
    assert np.quantile(errors, 0.95) <= 0.100


def test_the_first_word_of_a_window_does_not_start_with_it(tmp_path: Path) -> None:
    """Silence before and between: nobody owns it."""
    leads = [(name, lead_s) for name in KNOWN for lead_s in (0.0, 0.7, 3.0)]
    cut = []
    for name, lead_s in leads:
        lead = np.zeros(round(lead_s * SAMPLE_RATE), np.int16)
        cut.append(Window(np.concatenate([lead, mono_of(SAMPLES / name, tmp_path)]), 0.0))
    for (name, lead_s), heard in zip(leads, load(MICRO, ONE).transcribe(cut, Asked()), strict=True):
        assert heard.words[0].start_s - lead_s == pytest.approx(SAID[name][0].start_s, abs=0.1)


def test_words_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    cut = [
        window for name in KNOWN[:3] for window in windows(mono_of(SAMPLES / name, tmp_path), max_window_s=9)
    ]
    together = load(MICRO, Hardware(threads=1, batch_size=len(cut))).transcribe(cut, Asked())
    apart = load(MICRO, Hardware(threads=1, batch_size=1)).transcribe(cut, Asked())
    assert [[(w.text, w.start_s, w.end_s) for w in heard.words] for heard in together] == [
        [(w.text, w.start_s, w.end_s) for w in heard.words] for heard in apart
    ]
    sure, as_sure = ([w.probability for one in heard for w in one.words] for heard in (together, apart))
    assert sure == pytest.approx(as_sure, abs=1e-3)


def test_workers_give_the_same_words(micro: Transcriber, tmp_path: Path) -> None:
    recordings = [Recording(name, mono_of(SAMPLES / name, tmp_path)) for name in KNOWN[:3]]
    alone = list(micro.run(recordings))
    with Transcriber(MICRO, workers=2) as two:
        both = list(two.run(recordings))
    both.sort(key=lambda one: [heard.id for heard in alone].index(one.id))  # whoever is done first
    for one, other in zip(alone, both, strict=True):
        assert isinstance(one.outcome, Transcript)
        assert isinstance(other.outcome, Transcript)
        assert [replace(w, probability=0) for w in one.outcome.words] == [
            replace(w, probability=0) for w in other.outcome.words
        ]


@pytest.mark.case(39)
@pytest.mark.parametrize("sound", ["silence", "hiss", "hum"])
def test_where_nobody_speaks_there_are_no_words(sound: str) -> None:
    count = 12 * SAMPLE_RATE
    rng = np.random.default_rng(0)
    samples = {
        "silence": np.zeros(count),
        "hiss": rng.standard_normal(count) * 400,
        "hum": 3000 * np.sin(np.arange(count) * 2 * np.pi * 50 / SAMPLE_RATE),
    }[sound]
    (heard,) = load(MICRO, ONE).transcribe([Window(samples.astype(np.int16), 0.0)], Asked())
    assert heard.words == ()


@pytest.mark.parametrize(
    "options", [{"beams": 3}, {"precision": "bfloat16"}, {"precision": "float16", "beams": 2}], ids=str
)
def test_options_change_how_it_listens_not_what_is_said(options: dict[str, Any], tmp_path: Path) -> None:
    model = replace(MICRO, options=options)
    assert model.fingerprint != MICRO.fingerprint
    cut = [Window(mono_of(SAMPLES / name, tmp_path), 0.0) for name in KNOWN[:2]]
    heard = load(model, ONE).transcribe(cut, Asked())
    for name, one in zip(KNOWN[:2], heard, strict=True):
        assert wer(name, one.words) < WER


@pytest.mark.parametrize(
    ("settings", "removed"),
    [
        ({"is_multilingual": False}, ["lang_to_id", "task_to_id"]),  # openai/whisper-tiny.en and its like
        ({}, ["is_multilingual"]),
        ({}, ["alignment_heads"]),
        ({}, ["max_length"]),
        ({"alignment_heads": [[25, 0], [1, 0], [2, 19]]}, []),  # a student with its teacher's heads
        ({"alignment_heads": [[25, 0]]}, []),
    ],
    ids=str,
)
def test_checkpoints_say_different_things_about_themselves(
    settings: dict[str, Any], removed: list[str], tmp_path: Path
) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "copy")
    said_of_itself = json.loads((folder / "generation_config.json").read_text()) | settings
    kept = {name: value for name, value in said_of_itself.items() if name not in removed}
    (folder / "generation_config.json").write_text(json.dumps(kept))
    cut = [Window(mono_of(SAMPLES / name, tmp_path), 0.0) for name in KNOWN[:2]]
    heard = load(replace(MICRO, weights=str(folder), digest=""), ONE).transcribe(cut, Asked())
    for name, one in zip(KNOWN[:2], heard, strict=True):
        assert wer(name, one.words) < WER


def test_plain_transformers_reads_it(tmp_path: Path) -> None:
    from transformers import pipeline

    hear = pipeline("automatic-speech-recognition", model=str(CHECKPOINT))
    samples = mono_of(SAMPLES / KNOWN[0], tmp_path).astype(np.float32) / 32768
    text = hear({"raw": samples, "sampling_rate": SAMPLE_RATE}, return_timestamps=True)["text"]
    assert score(SAID[KNOWN[0]], [TimedWord(word, 0.0) for word in text.split()]).wer < WER


def test_ctranslate2_converts_it_and_faster_whisper_hears(tmp_path: Path) -> None:
    from ctranslate2.converters import TransformersConverter
    from faster_whisper import WhisperModel

    files = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(CHECKPOINT), copy_files=files).convert(str(tmp_path / "ct2"))
    model = WhisperModel(str(tmp_path / "ct2"), device="cpu", compute_type="float32", cpu_threads=1)
    samples = mono_of(SAMPLES / KNOWN[0], tmp_path).astype(np.float32) / 32768
    segments, _ = model.transcribe(samples, condition_on_previous_text=False, word_timestamps=True)
    heard = [TimedWord(word.word.strip(), word.start) for segment in segments for word in segment.words]
    assert score(SAID[KNOWN[0]], heard).wer < WER


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])


def of_another_kind(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))


def with_a_hole(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.decoder.layers.2.fc2.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def without_generation_settings(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (pickled, "no weights as model.safetensors"),
        (cut_off, "no Whisper checkpoint that can be loaded"),
        (of_another_kind, "model_type 'wav2vec2'"),
        (with_a_hole, "lacks weights, model.decoder.layers.2.fc2.weight"),
        (without_tokenizer, "no Whisper checkpoint that can be loaded"),
        (without_generation_settings, "generation_config.json lacks no_timestamps_token_id"),
        (shutil.rmtree, "which is not there"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "copy")
    model = replace(MICRO, name="copied", weights=str(folder), digest="")
    whole = model.fingerprint
    assert whole == MICRO.fingerprint  # wherever it lies
    damage(folder)
    with pytest.raises(ModelError, match=f"^model copied: .*{sentence}"):
        load(model, ONE)
    if folder.exists() and any(folder.glob("*.safetensors")):
        assert model.fingerprint != whole


@pytest.mark.parametrize(
    ("change", "hardware", "sentence"),
    [
        ({"options": {"beam": 3}}, ONE, r"unknown options \['beam'\]; known: precision, beams"),
        ({"options": {"precision": "int3"}}, ONE, "its options are wrong: precision"),
        ({"language": "xx"}, ONE, "knows no language 'xx'"),
        ({}, Hardware(device="cuda:7"), "this machine has no device 'cuda:7'"),
        ({}, Hardware(device="abacus"), "this machine has no device 'abacus'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(change: dict[str, Any], hardware: Hardware, sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^model micro_whisper.*{sentence}"):
        load(replace(MICRO, **change), hardware)


def test_a_worker_that_cannot_load_says_why(tmp_path: Path) -> None:
    broken = ModelVersion("broken", "whisper", weights="/no/such/folder")
    with Transcriber(broken, workers=2) as two, pytest.raises(ModelError, match="which is not there"):
        list(two.run([Recording("a", mono_of(SAMPLES / KNOWN[0], tmp_path))]))


@pytest.mark.parametrize(
    ("language", "sidecar", "heard"),
    [("en", "de", "en"), ("auto", "de", "de"), ("auto", "pt-BR", "pt"), ("auto", "klingon", None)],
)
def test_a_language_is_fixed_or_the_sidecars_or_the_windows_own(
    language: str, sidecar: str, heard: str | None, tmp_path: Path
) -> None:
    sound = mono_of(SAMPLES / KNOWN[0], tmp_path)
    with Transcriber(replace(MICRO, language=language, temperatures=()), ONE) as transcriber:
        outcome = transcriber.hear(Recording("a", sound, language=sidecar)).outcome
        known = transcriber._crew._workers[0].listener.engine.letters.languages  # type: ignore[attr-defined]
    assert isinstance(outcome, Transcript)
    (found,) = {word.signals.language for word in outcome.words if word.signals}
    assert outcome.language == found
    assert found == heard if heard else found in known


def test_what_to_expect_stands_before_the_text_as_far_as_there_is_room(tmp_path: Path) -> None:
    sound = mono_of(SAMPLES / KNOWN[0], tmp_path)
    prompts: list[Any] = []
    with Transcriber(replace(MICRO, prompt="gates"), ONE) as transcriber:
        engine: Any = transcriber._crew._workers[0].listener.engine  # type: ignore[attr-defined]
        letters, judge = engine.letters, engine._judge

        def seen(memory: Any, before: Any, texts: Any) -> Any:
            prompts.append(before)
            return judge(memory, before, texts)

        engine._judge = seen
        transcriber.hear(Recording("a", sound, prompt="the old school"))
    (((before, *said, start, language, task, times),),) = prompts
    assert letters._tokenizer.decode(said) == " gates, the old school"
    plain = letters.prompt("en", Asked(), 9)
    assert [start, language, task, times] == plain
    cut = letters.prompt("en", Asked(prompt="the old school" + " the old school" * 99), 9)
    assert cut[0] == before
    assert cut[1:] == [*letters._encode(" the old school" * 100)[-9:], *plain]


class Spelling:
    """A tokenizer, by hand: each token is one piece of text."""

    def decode(self, tokens: list[bytes]) -> str:
        return b"".join(tokens).decode(errors="replace")

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return SimpleNamespace(ids=[f" {word}".encode() for word in text.split()])


def letters(tokenizer: Any) -> Lettering:
    return Lettering("by_hand", tokenizer, {"eos_token_id": 0, "decoder_start_token_id": 0})


@pytest.mark.parametrize(
    ("pieces", "language", "words"),
    [
        ([" the", " red", " car", "."], "en", ["the", "red", "car."]),
        ([" thir", "teen", " o", "'", "clock", "!"], "en", ["thirteen", "o'clock!"]),
        ([" he", " said", ",", ' "', "no", '"', "."], "en", ["he", "said,", '"no".']),
        ([" -", " well", " ...", " yes"], "en", ["-well...", "yes"]),
        ([" so", " (", "so", ")", " -"], "en", ["so", "(so)-"]),
        ([" 5", " %", " of"], "en", ["5%", "of"]),
        ([" foo", " ", "bar", "\n", " baz", " "], "en", ["foo", "bar", "baz"]),
        ([" caf", "\u00e9".encode()[:1], "\u00e9".encode()[1:], "s"], "en", ["caf\u00e9s"]),
        (["\u4f60", "\u597d", "\u3002"], "zh", ["\u4f60", "\u597d\u3002"]),
        ([" .", " !"], "en", []),
        ([], "en", []),
    ],
)
def test_tokens_become_words(pieces: list[str | bytes], language: str, words: list[str]) -> None:
    tokens: Any = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
    split = letters(Spelling()).pieces(tokens, language)
    assert [text for text, _, _ in split] == words
    assert all(first <= last for _, first, last in split)


def test_numbers_are_timed_as_they_are_spoken() -> None:
    tokens: Any = [piece.encode() for piece in (" in", " 19", "84", ",", " 3", " gates")]
    spelling = letters(Spelling())
    pieces = spelling.pieces(tokens, "en")
    assert [piece.text for piece in pieces] == ["in", "1984,", "3", "gates"]
    spoken = spelling.spoken(tokens, pieces, "en")
    assert spoken is not None
    said: Any = spoken.tokens
    assert b"".join(said).decode() == " in nineteen eighty-four, three gates"
    assert spoken.words == [(0, 0), (1, 2), (3, 3), (4, 4)]
    assert spelling.spoken(tokens[:1], pieces[:1], "en") is None
    assert spelling.spoken(tokens, pieces, "xx") is None  # nobody knows how
    many: Any = [f" {number}".encode() for number in range(170, 300)]
    assert spelling.spoken(many, spelling.pieces(many, "en"), "en") is None  # there is no room for them


def test_more_tokens_than_sound_stand_evenly() -> None:
    """A loop on a short window: nothing is known of its words' times, and that is said."""
    engine: Any = load(MICRO, ONE)
    tokens = engine.letters._encode(" the" * 40)
    window = Window(np.zeros(SAMPLE_RATE // 2, np.int16), 0.0)
    engine.write = lambda *_: (None, [Written(tokens, [0.5] * 40, "en", -0.7)])
    engine.look = lambda *_: align([np.ones((40, 25), np.float32)])
    (heard,) = engine.transcribe([window], Asked())
    assert {word.timing_source for word in heard.words} == {"interpolated"}
    assert heard.words[-1].end_s == pytest.approx(0.5)
