"""Words of real recordings: right enough, in the right place, and the same however they are asked for."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import write_flac
from speech import pipeline
from speech.errors import EngineError
from speech.media import LocalFile, MediaDecoder, mixed, read_flac
from speech.models import ModelVersion
from speech.normalizing import TimedWord
from speech.pipeline import Transcriber, into_segments
from speech.reading import Recording
from speech.scoring import Score, score
from speech.types import SAMPLE_RATE, HeardWindow, Samples, Seconds, Transcript, Window, Word
from speech.voice import FRAME, FRAME_S, Voice, _Cutter, windows
from tests.conftest import ROOT, SAMPLES

FAST = ModelVersion("fast", "pocketsphinx", options={"fwdflat": False, "maxhmmpf": 3000, "topn": 2, "ds": 2})
REAL_SPEECH = ROOT.parent / "shared" / "data"


def samples_of(path: Path, scratch: Path) -> Samples:
    with MediaDecoder() as decoder, LocalFile(path) as source:
        decoder.extract(source, path.name, scratch / "audio.flac")
    return read_flac(scratch / "audio.flac")


def mono_of(path: Path, scratch: Path) -> Samples:
    """The same as an engine hears it."""
    return mixed(samples_of(path, scratch))


@pytest.fixture(scope="module")
def fast() -> Iterator[Transcriber]:
    with Transcriber(FAST) as transcriber:
        yield transcriber


def words(transcriber: Transcriber, recordings: list[Recording]) -> dict[str, list[Word]]:
    heard = {}
    for one in transcriber.run(recordings):
        assert isinstance(one.outcome, Transcript)
        heard[one.id] = one.outcome.words
    return heard


def test_words_do_not_depend_on_neighbours_or_workers(fast: Transcriber, tmp_path: Path) -> None:
    recordings = [
        Recording(name, samples_of(SAMPLES / name, tmp_path))
        for name in ("station.webm", "delayed_audio.mp4")
    ]
    together = words(fast, recordings)
    alone = {recording.id: words(fast, [recording])[recording.id] for recording in reversed(recordings)}
    with Transcriber(FAST, workers=2) as two_processes:
        side_by_side = words(two_processes, recordings)
    assert together == alone == side_by_side
    assert all(together.values())


def test_words_of_a_window_stand_where_the_window_stood(fast: Transcriber, tmp_path: Path) -> None:
    spoken = samples_of(SAMPLES / "delayed_audio.mp4", tmp_path)
    pause = np.zeros(45 * SAMPLE_RATE, dtype=np.int16)
    (early,) = words(fast, [Recording("a", spoken)]).values()
    (twice,) = words(fast, [Recording("b", np.concatenate([spoken, pause, spoken]))]).values()
    offset = (len(spoken) + len(pause)) / SAMPLE_RATE
    late = [TimedWord(word.text, word.start_s - offset) for word in twice if word.start_s > offset]
    same = score([TimedWord(word.text, word.start_s) for word in early], late)
    # The detector's frames fall elsewhere, so a word may be heard differently, but not elsewhere.
    assert same.wer < 0.1
    assert same.median_start_error_s is not None
    assert same.median_start_error_s < 0.02


@pytest.mark.parametrize("max_window_s", [3.0, 10.0, 30.0])
def test_windows_hold_all_speech_and_none_is_too_long(tmp_path: Path, max_window_s: Seconds) -> None:
    once = samples_of(SAMPLES / "library.mp4", tmp_path)
    speech = np.concatenate([*[once] * 4, np.zeros(40 * SAMPLE_RATE, np.int16), once])
    cut = list(windows(speech, max_window_s))
    assert all(window.duration_s <= max_window_s for window in cut)
    ends = [0.0, *(window.start_s + window.duration_s for window in cut)]
    assert all(end <= window.start_s + 1e-9 for end, window in zip(ends, cut, strict=False))
    sure = Voice().hear(speech)
    for frame in np.flatnonzero(sure > 0.8):
        at = (frame + 0.5) * FRAME_S
        assert any(w.start_s <= at < w.start_s + w.duration_s for w in cut), at
    assert sum(window.duration_s for window in cut) < len(speech) / SAMPLE_RATE - 38


def test_windows_do_not_depend_on_the_pieces_that_a_recording_comes_in(tmp_path: Path) -> None:
    speech = np.tile(samples_of(SAMPLES / "library.mp4", tmp_path), 4)
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, len(speech), 200))
    whole, pieces = (list(windows(sound, 12.0)) for sound in (speech, np.split(speech, edges)))
    assert [(w.start_s, w.duration_s) for w in whole] == [(w.start_s, w.duration_s) for w in pieces]
    assert all((a.samples == b.samples).all() for a, b in zip(whole, pieces, strict=True))


def test_what_is_held_of_endless_speech_does_not_grow() -> None:
    """Behind a pause that two paddings share, speech that never ends."""
    rng = np.random.default_rng(0)
    voice = np.full(20_000, 0.9, np.float32)
    voice[100:112] = 0.0
    samples = rng.integers(-3000, 3000, len(voice) * FRAME).astype(np.int16)
    cutter, cut, held = _Cutter(900), list[Window](), 0
    for first in range(0, len(voice), 512):
        part = voice[first : first + 512]
        cutter.take_in(samples[first * FRAME : (first + len(part)) * FRAME], part)
        cut += cutter.cut(at_the_end=False)
        held = max(held, len(cutter._voice))
    cut += cutter.cut(at_the_end=True)
    assert held < 3 * 900
    whole = _Cutter(900)
    whole.take_in(samples, voice)
    at_once = list(whole.cut(at_the_end=True))
    assert [(w.start_s, w.duration_s) for w in cut] == [(w.start_s, w.duration_s) for w in at_once]
    assert sum(len(window.samples) for window in cut) == len(samples)


def test_endless_speech_is_cut_at_its_quietest_moment(tmp_path: Path) -> None:
    once = samples_of(SAMPLES / "library.mp4", tmp_path)
    voiced = np.flatnonzero(Voice().hear(once) > 0.9)
    longest = max(np.split(voiced, np.flatnonzero(np.diff(voiced) > 1) + 1), key=len)
    said = once[longest[0] * 512 : longest[-1] * 512]
    speech = np.tile(said, -(-40 * SAMPLE_RATE // len(said)))
    speech[int(24.9 * SAMPLE_RATE) : int(25.1 * SAMPLE_RATE)] //= 8
    first, second = list(windows(speech, max_window_s=30.0))[:2]
    assert first.start_s + first.duration_s == pytest.approx(25.0, abs=0.15)
    assert second.start_s == pytest.approx(first.start_s + first.duration_s)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 4.0])
def test_silence_has_no_words(fast: Transcriber, seconds: float) -> None:
    silence = np.zeros(int(seconds * SAMPLE_RATE), dtype=np.int16)
    assert words(fast, [Recording("silence", silence)]) == {"silence": []}


def test_segments_end_at_pauses_and_sentence_ends() -> None:
    def word(text: str, start: float, end: float) -> Word:
        return Word(text, start, end, 1.0, "test")

    spoken = [word("one", 0.0, 0.4), word("two.", 0.5, 0.9), word("three", 0.95, 1.2), word("four", 2.0, 2.2)]
    assert [segment.text for segment in into_segments(spoken)] == ["one two.", "three", "four"]


@pytest.mark.skipif(not REAL_SPEECH.exists(), reason="needs recordings that are not part of the project")
def test_real_read_speech(tmp_path: Path) -> None:
    total = Score()
    with Transcriber(ModelVersion("full", "pocketsphinx")) as full:
        for name in ("librivox-0880", "librivox-0920"):
            aligned = json.loads((REAL_SPEECH / f"{name}.json").read_text())["w"]
            said = [TimedWord(w["t"].split("(")[0], w["b"]) for w in aligned if w["t"] != "<sil>"]
            recording = Recording(name, samples_of(REAL_SPEECH / f"{name}.wav", tmp_path))
            (heard,) = words(full, [recording]).values()
            total += score(said, [TimedWord(word.text, word.start_s) for word in heard])
    assert total.wer <= 0.35
    assert total.median_start_error_s is not None
    assert total.median_start_error_s <= 0.08


def test_the_sides_of_stereo_are_heard_apart_when_asked(tmp_path: Path) -> None:
    """A call: one speaker left, the other right, both at once for a while."""
    left, right = (samples_of(SAMPLES / name, tmp_path) for name in ("delayed_audio.mp4", "school.mp4"))
    length = max(map(len, (left, right)))
    call = np.stack([np.pad(side, (0, length - len(side))) for side in (left, right)])
    with Transcriber(replace(FAST, channels="apart")) as apart, Transcriber(FAST) as mixing:
        (heard,) = words(apart, [Recording("call", call)]).values()
        for number, side in enumerate((left, right)):
            (alone,) = words(mixing, [Recording("side", side)]).values()
            of_side = [replace(word, channel=None) for word in heard if word.channel == number]
            assert [word.text for word in of_side] == [word.text for word in alone]
            starts = [word.start_s for word in of_side]
            assert starts == sorted(starts)
        (mixture,) = words(mixing, [Recording("call", call)]).values()
        assert {word.channel for word in mixture} == {None}
        # One sound on both sides is one speaker, not two who say the same.
        (twice,) = words(apart, [Recording("twice", np.stack([right, right // 2]))]).values()
        assert {word.channel for word in twice} == {None}


def test_stereo_is_kept_and_more_channels_are_mixed(tmp_path: Path) -> None:
    assert samples_of(SAMPLES / "weather.mp4", tmp_path).shape[0] == 2
    assert samples_of(SAMPLES / "library.mp4", tmp_path).ndim == 1


class Kept:
    """What a run leaves to the next; counts what it is given."""

    def __init__(self) -> None:
        self.windows: dict[str, list[HeardWindow]] = defaultdict(list)

    def recall(self, recording: Recording) -> list[HeardWindow]:
        return list(self.windows[recording.id])

    def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
        self.windows[recording.id] += heard


def test_a_window_that_was_heard_is_not_heard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "KEEP_EVERY_S", 0.0)
    sides = [samples_of(SAMPLES / name, tmp_path) for name in ("delayed_audio.mp4", "school.mp4")]
    call = np.stack([np.resize(side, max(map(len, sides))) for side in sides])
    memory = Kept()
    with Transcriber(replace(FAST, max_window_s=3.0, channels="apart")) as apart:
        (undisturbed,) = apart.run([Recording("call", call)], memory)
        everything = memory.windows["call"]
        assert len(everything) > 4
        memory.windows["call"] = everything[::2]
        (again,) = apart.run([Recording("call", call)], memory)
    assert again.outcome == undisturbed.outcome
    assert sorted(memory.windows["call"], key=str) == sorted(everything, key=str)


def test_damaged_audio_fails_its_recording_alone(fast: Transcriber, tmp_path: Path) -> None:
    sound = mono_of(SAMPLES / "school.mp4", tmp_path)
    good, cut, other = (write_flac(tmp_path / f"{name}.flac", sound) for name in ("good", "cut", "other"))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2] + bytes(20_000) + whole[len(whole) // 2 + 20_000 :])
    other.write_bytes(b"<html>" * 1000)
    heard = {h.id: h.outcome for h in fast.run(Recording(path.stem, path) for path in (cut, good, other))}
    assert isinstance(heard["good"], Transcript)
    for name in ("cut", "other"):
        outcome = heard[name]
        assert isinstance(outcome, EngineError), name
        assert "this audio is damaged" in str(outcome)
