"""Judge a checkpoint by speech that it was not trained on, through the platform's own pipeline.

(Noise alone goes straight to the engine: voice activity would keep it away.)

Usage (needs flite and ``pip install -e '.[train]'``)::

    python -m micro_whisper.evaluate [CHECKPOINT]

Exit code 1 when a line does not hold.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from micro_whisper.synthesis import (
    FLITE_VOICES,
    SEEN_VOICES,
    UNSEEN_VOICES,
    SpokenWord,
    speaker,
)
from micro_whisper.vocabulary import held_out, sentence
from speech.engines import Asked, Hardware, load
from speech.errors import EngineError
from speech.models import ModelVersion
from speech.normalizing import TimedWord
from speech.pipeline import Transcriber
from speech.reading import Recording
from speech.scoring import Score, score
from speech.types import SAMPLE_RATE, Samples, Seconds, Transcript, Window
from speech.voice import windows

CHECKPOINT = Path(__file__).with_name("checkpoint")


class Spoken(NamedTuple):
    """A recording and the truth about it."""

    samples: Samples
    words: list[SpokenWord]


class Line(NamedTuple):
    """One line of the table: a value, and the most it may be."""

    check: str
    value: float
    unit: str
    bar: float

    @property
    def holds(self) -> bool:
        """Whether the value stays within its bar."""
        return self.value <= self.bar


def speak(rng: np.random.Generator, voice: str) -> Spoken:
    """A sentence that training never meets, by one voice, without silence around it."""
    while True:
        text = sentence(rng)
        try:
            if held_out(text):
                speech = speaker(voice).say(f"{text}.", float(rng.uniform(0.85, 1.2))).trimmed()
                return Spoken(speech.samples, list(speech.words))
        except ValueError:
            continue  # words that run into one another have no times to compare with


def recording(rng: np.random.Generator, voices: Sequence[str], duration_s: Seconds | None) -> Spoken:
    """Sentences of these voices up to a duration, or a single one; pauses, levels, a little noise."""
    parts: list[npt.NDArray[np.float64]] = [np.zeros(round(rng.uniform(0.2, 0.8) * SAMPLE_RATE))]
    words: list[SpokenWord] = []
    clock = len(parts[0]) / SAMPLE_RATE
    while True:
        spoken = speak(rng, str(rng.choice(voices)))
        words += [SpokenWord(word, clock + a, clock + b) for word, a, b in spoken.words]
        pause = np.zeros(
            round(float(rng.choice([rng.uniform(0.15, 0.6), rng.uniform(0.3, 1.5)])) * SAMPLE_RATE)
        )
        parts += [spoken.samples.astype(np.float64) * rng.uniform(0.3, 1.0), pause]
        clock = sum(map(len, parts)) / SAMPLE_RATE
        if duration_s is None or clock > duration_s - 5:
            break
    sound = np.concatenate(parts)
    sound += rng.standard_normal(len(sound)) * np.abs(sound).max() * 10 ** (-rng.uniform(30, 50) / 20)
    return Spoken(np.clip(sound, -32768, 32767).astype(np.int16), words)


def quiet_sounds(rng: np.random.Generator) -> Iterator[tuple[str, Samples]]:
    """Ten seconds each of sounds in which nobody speaks."""
    count = 10 * SAMPLE_RATE
    time_s = np.arange(count) / SAMPLE_RATE
    white = rng.standard_normal(count)
    yield "silence", np.zeros(count, np.int16)
    for level in (10, 300, 3000):
        yield f"white noise {level}", (white * level).astype(np.int16)
    brown = np.cumsum(white)
    brown -= np.convolve(brown, np.ones(400) / 400, mode="same")
    yield "brown noise", (brown / np.abs(brown).max() * 8000).astype(np.int16)
    yield "hum", (2000 * np.sin(2 * np.pi * 50 * time_s) + white * 20).astype(np.int16)
    yield "tone", (5000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    clicks = np.zeros(count)
    clicks[rng.integers(count, size=40)] = 12000
    yield "clicks", clicks.astype(np.int16)


def judge(transcriber: Transcriber, spoken: Sequence[Spoken]) -> tuple[Score, list[Seconds]]:
    """The score over recordings, and the start errors of the first words of their windows."""
    total, firsts = Score(), []
    for number, (samples, words) in enumerate(spoken):
        heard = transcriber.hear(Recording(str(number), samples)).outcome
        if isinstance(heard, EngineError):
            raise heard
        total += score([TimedWord(w, a) for w, a, _ in words], _timed(heard))
        for window in windows(samples, transcriber.model.max_window_s):
            said = next((word.start_s for word in words if word.end_s > window.start_s + 0.05), None)
            got = next((word.start_s for word in heard.words if word.start_s >= window.start_s), np.inf)
            if said is not None:  # heard rightly or not: a first word that is lost counts as well
                firsts.append(abs(got - said))
    return total, firsts


def _timed(transcript: Transcript) -> list[TimedWord]:
    return [TimedWord(word.text, word.start_s) for word in transcript.words]


def evaluate(checkpoint: Path, seed: int) -> list[Line]:
    """All lines of the model card."""
    model = ModelVersion("judged", "whisper", weights=str(checkpoint.absolute()))
    rng = np.random.default_rng((seed, 2))
    flite = [f"flite/{name}" for name in FLITE_VOICES]
    espeak = [voice for voice in SEEN_VOICES if voice.startswith("espeak/")]
    with Transcriber(model) as transcriber:
        by_flite, first_a = judge(transcriber, [recording(rng, flite, None) for _ in range(100)])
        by_espeak, first_b = judge(transcriber, [recording(rng, espeak, None) for _ in range(100)])
        unseen, _ = judge(transcriber, [recording(rng, UNSEEN_VOICES, None) for _ in range(100)])
        # As many of flite's four voices as of espeak's many.
        voices = [*flite * (len(espeak) // len(flite)), *espeak]
        long, first_c = judge(transcriber, [recording(rng, voices, 90.0) for _ in range(10)])
    # Past voice activity, which would keep these from the model.
    quiet = load(model, Hardware()).transcribe([Window(s, 0.0) for _, s in quiet_sounds(rng)], Asked())
    invented = sum(len(heard.words) for heard in quiet)
    sentences = by_flite + by_espeak
    starts = np.abs([*sentences.start_errors_s, *long.start_errors_s])
    firsts = [*first_a, *first_b, *first_c]
    return [
        Line("wer_held_out_sentences", sentences.wer * 100, "%", 2),
        Line("wer_flite", by_flite.wer * 100, "%", 3),
        Line("wer_espeak", by_espeak.wer * 100, "%", 3),
        Line("wer_unseen_voices", unseen.wer * 100, "%", 8),
        Line("wer_90_s_recordings", long.wer * 100, "%", 2),
        Line("word_start_median", float(np.median(starts)) * 1000, "ms", 25),
        Line("word_start_p95", float(np.quantile(starts, 0.95)) * 1000, "ms", 100),
        Line("first_word_start_median", float(np.median(firsts)) * 1000, "ms", 25),
        Line("first_word_start_p95", float(np.quantile(firsts, 0.95)) * 1000, "ms", 100),
        Line("words_in_silence_and_noise", invented, "words", 0),
    ]


def report(lines: list[Line]) -> dict[str, Any]:
    """The table as it is written to a file."""
    checks = [
        {**line._asdict(), "value": round(line.value, 2), "bar": f"<= {line.bar:g}", "holds": line.holds}
        for line in lines
    ]
    git = ["git", "-C", str(CHECKPOINT.parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"machine": machine, "commit": commit, "checks": checks}


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A folder that transformers can load")] = CHECKPOINT,
    seed: Annotated[int, typer.Option(help="Other sentences")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the table here, as JSON")] = None,
) -> None:
    """Judge a checkpoint by speech that it was not trained on."""
    lines = evaluate(checkpoint, seed)
    for line in lines:
        holds = "holds" if line.holds else "DOES NOT HOLD"
        typer.echo(f"{line.check:28} {line.value:7.2f} {line.unit:6} at most {line.bar:3g}   {holds}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report(lines), indent=1) + "\n")
    raise typer.Exit(0 if all(line.holds for line in lines) else 1)


if __name__ == "__main__":
    typer.run(main)
