"""``make bench-engine``: fast with word times on, right about time, the same words whatever happens."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import MICRO, converted, random_checkpoint, speak, write_flac
from benchmarks.report import Check, publish
from benchmarks.systems import Job, Ran, peak_mb, side_by_side
from micro_whisper.evaluate import Spoken
from speech.engines import Hardware
from speech.models import ModelVersion
from speech.pipeline import Heard, Transcriber
from speech.reading import Memory, Recording
from speech.scoring import Score, TimedWord, score
from speech.types import SAMPLE_RATE, HeardWindow, Samples, Seconds, Transcript, Word

THREADS = os.cpu_count() or 1
LENGTHS_S: list[Seconds] = [20.0, 45.0, 60.0, 90.0, 120.0, 240.0, 300.0]
FEW = {"tiny": {60.0, 240.0}, "base": {60.0, 240.0}, "turbo": {60.0}}
"""Less for models that take their time; the peers batch within a file, which takes a long one."""
OURS = ("our torch engine", "our ctranslate2 engine")
PEERS = ("transformers pipeline", "faster-whisper batched")
MODEL = ModelVersion("micro", "whisper", weights=str(MICRO), temperatures=())
NEAR_S: tuple[Seconds, ...] = (0.02, 0.05, 0.1, 0.2)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table beside the one of checks."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, width=130).print(table)


def speed(
    folder: Path, spoken: list[Spoken], files: list[Path], warm_up: Path, shape: str, rounds: int
) -> Iterator[Check]:
    """All systems on the same files, for micro_whisper or a shape with random weights."""
    micro = shape == "micro"
    checkpoint = MICRO if micro else random_checkpoint(folder / shape, shape)
    job = Job(checkpoint, converted(checkpoint, folder / f"{shape}-ct2"), THREADS, warm_up, forced=not micro)
    ran = list(side_by_side(job, files, rounds))
    audio_s = sum(len(one.samples) for one in spoken) / SAMPLE_RATE
    best = min(OURS, key=lambda system: median(one[system].seconds for one in ran))
    ratios = {
        (system, peer): [one[peer].seconds / one[system].seconds for one in ran]
        for system in OURS
        for peer in PEERS
    }
    rows = []
    for system in (*OURS, *PEERS):
        seconds = [one[system].seconds for one in ran]
        cells = [
            system,
            f"{audio_s / median(seconds):.1f} ({audio_s / max(seconds):.1f}-{audio_s / min(seconds):.1f})",
        ]
        cells += [f"{median(ratios[system, peer]):.2f}" if system in OURS else "" for peer in PEERS]
        cells.append(f"{sum(map(len, ran[-1][system].words))}")
        cells.append(f"{ran[-1][system].peak_mb:.0f}")
        rows.append(cells)
    columns = ("system", "RTFx, median (range)", *(f"times {peer}" for peer in PEERS), "words", "peak MB")
    show(f"{shape}: {audio_s:.0f} s of speech, {THREADS} threads, float32, {rounds} rounds", columns, rows)
    yield from _speed_checks(shape, best, ratios)
    if micro:
        yield from right(spoken, ran[-1], best)


def _speed_checks(shape: str, best: str, ratios: dict[tuple[str, str], list[float]]) -> Iterator[Check]:
    pipeline, faster = (median(ratios[best, peer]) for peer in PEERS)
    bars = {"micro": (5.0, 1.3), "base": (1.5, 1.0)}.get(shape)
    if bars:
        yield Check.at_least(f"speedup_pipeline_{shape}", pipeline, "times", bars[0])
        yield Check.at_least(f"speedup_faster_whisper_{shape}", faster, "times", bars[1])


def right(spoken: list[Spoken], ran: dict[str, Ran], best: str) -> Iterator[Check]:
    """Words and their times against the truth."""
    scores: dict[str, Score] = {}
    boundaries: dict[str, dict[Seconds, float]] = {}
    rows = []
    for system, one in ran.items():
        said = [[TimedWord(word, start) for word, start, _ in recording.words] for recording in spoken]
        total = sum((score(s, heard) for s, heard in zip(said, one.words, strict=True)), Score())
        errors_ms = np.abs(total.start_errors_s) * 1000
        counts = sum(map(len, said)), sum(map(len, one.words))
        scores[system] = total
        boundaries[system] = {
            near: 2 * float((errors_ms <= near * 1000).sum()) / sum(counts) for near in NEAR_S
        }
        rows.append(
            [
                system,
                f"{total.wer * 100:.2f}",
                *(
                    f"{figure:.1f}"
                    for figure in (np.median(errors_ms), errors_ms.mean(), np.quantile(errors_ms, 0.95))
                ),
                *(f"{boundaries[system][near]:.3f}" for near in NEAR_S),
            ]
        )
    columns = (
        "system",
        "WER %",
        "start error ms: median",
        "mean",
        "p95",
        *(f"F1 {n * 1000:.0f} ms" for n in NEAR_S),
    )
    show("word starts against the truth", columns, rows)
    error_ms = {system: float(np.median(np.abs(s.start_errors_s))) * 1000 for system, s in scores.items()}
    yield Check("wer_minus_pipeline_micro", (scores[best].wer - scores[PEERS[0]].wer) * 100, "%", 0)
    yield Check("start_error_median_ms", error_ms[best], "ms", 20)
    yield Check.at_least("f1_50ms", boundaries[best][0.05], "", 0.90)
    best_peer = min(error_ms[peer] for peer in PEERS)
    yield Check("start_error_minus_best_peer_ms", error_ms[best] - best_peer, "ms", 0, below=True)


def transcribed(heard: Heard) -> list[Word]:
    """The words of a recording that must not have failed."""
    assert isinstance(heard.outcome, Transcript), heard.outcome
    return heard.outcome.words


def differences(ours: Sequence[Word], theirs: Sequence[Word]) -> tuple[int, float]:
    """Words that differ, and the largest difference in time, in ms, of those that do not."""
    same = [word.text for word in ours] == [word.text for word in theirs]
    if not same:
        one, other = ([TimedWord(word.text, 0.0) for word in words] for words in (ours, theirs))
        edits = score(one, other)
        return max(1, edits.substitutions + edits.deletions + edits.insertions), 0.0
    apart = [abs(a.start_s - b.start_s) for a, b in zip(ours, theirs, strict=True)]
    apart += [abs(a.end_s - b.end_s) for a, b in zip(ours, theirs, strict=True)]
    return 0, max(apart, default=0.0) * 1000


def invariance(folder: Path, files: list[Path]) -> Iterator[Check]:
    """Of both engines, in batches of 1 and of many, alone and among others, in this process and in two."""
    recordings = [Recording(str(file), file) for file in files]
    ct2 = replace(MODEL, engine="faster_whisper", weights=str(converted(MICRO, folder / "micro-ct2")))
    found = []
    for model in (MODEL, ct2):
        with Transcriber(model, Hardware("cpu", THREADS)) as many:
            together = {heard.id: transcribed(heard) for heard in many.run(recordings)}
            alone = {r.id: transcribed(many.hear(r)) for r in reversed(recordings)}
        others = [alone]
        for batch_size, workers in ((1, None), (3, 2)):
            with Transcriber(model, Hardware("cpu", 1, batch_size), workers) as other:
                others.append({heard.id: transcribed(heard) for heard in other.run(recordings)})
        found += [differences(together[name], other[name]) for other in others for name in together]
    yield Check("invariance_word_differences", sum(words for words, _ in found), "words", 0)
    yield Check("invariance_time_ms", max(ms for _, ms in found), "ms", 20)


def nonspeech(rng: np.random.Generator) -> Iterator[tuple[str, Samples]]:
    """Ten minutes each of what is no speech."""
    count = 600 * SAMPLE_RATE
    yield "silence", np.zeros(count, np.int16)
    time_s = np.arange(count) / SAMPLE_RATE
    sound = np.zeros(count)
    for _ in range(1200):  # notes of a scale, with overtones, that swell and fade
        first = int(rng.integers(count - 2 * SAMPLE_RATE))
        length = int(rng.integers(SAMPLE_RATE // 4, 2 * SAMPLE_RATE))
        pitch_hz = 110 * 2 ** (int(rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 14, 16])) / 12)
        part = slice(first, first + length)
        tones = [np.sin(2 * np.pi * pitch_hz * n * time_s[part]) / n for n in range(1, 5)]
        sound[part] += np.sum(tones, axis=0) * np.hanning(length)
    yield "music-like tones", (sound / np.abs(sound).max() * 12000).astype(np.int16)
    yield "noise", np.clip(rng.normal(0, 2500, count), -32768, 32767).astype(np.int16)


def invented(seed: int) -> Iterator[Check]:
    """Words where nobody speaks."""
    with Transcriber(MODEL, Hardware("cpu", THREADS)) as transcriber:
        recordings = [Recording(name, sound) for name, sound in nonspeech(np.random.default_rng(seed))]
        per_minute = {heard.id: len(transcribed(heard)) / 10 for heard in transcriber.run(recordings)}
    typer.echo(f"words a minute: {per_minute}", err=True)
    yield Check("words_per_minute_nonspeech", max(per_minute.values()), "words/min", 0.2)


def repeated(path: Path, samples: Samples, hours: float) -> Path:
    """A file of this length that says the same again and again."""
    count = round(hours * 3600 * SAMPLE_RATE)
    return write_flac(path, np.resize(np.concatenate([samples, np.zeros(SAMPLE_RATE, np.int16)]), count))


def long_file(folder: Path, samples: Samples, long_h: float) -> Iterator[Check]:
    """How much more memory a very long file takes, in all processes, than one of half an hour."""
    context = get_context("spawn")
    peaks = []
    for hours in (0.5, long_h):
        file = repeated(folder / "long.flac", samples, hours)
        ours, theirs = context.Pipe()
        process = context.Process(target=_hear_long, args=(theirs, file))
        process.start()
        theirs.close()
        words, took, peak = ours.recv()
        process.join(60)
        typer.echo(f"{hours} h: {words} words in {took:.0f} s, peak {peak:.0f} MB", err=True)
        peaks.append(peak)
    yield Check("long_file_mb_growth", peaks[1] - peaks[0], "MB", 300, below=True)


def _hear_long(pipe: Connection, file: Path) -> None:
    began = time.perf_counter()
    with Transcriber(MODEL, Hardware("cpu", threads=1), workers=THREADS) as transcriber:
        words = transcribed(transcriber.hear(Recording("long", file)))
        pipe.send((len(words), time.perf_counter() - began, peak_mb()))


def resumed(folder: Path, samples: Samples) -> Iterator[Check]:
    """Ten minutes: killed in the middle and heard to the end by another process, against undisturbed."""
    file = repeated(folder / "resumed.flac", samples, 1 / 6)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    first = context.Process(target=_hear_with_memory, args=(theirs, file, folder / "memory"))
    first.start()
    theirs.close()
    while ours.recv() != "kept":
        pass
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    memory = _memory(folder / "memory")
    kept = len(list(memory.recall(Recording("long", file))))
    with Transcriber(MODEL, Hardware("cpu", THREADS)) as transcriber:
        again = transcribed(*transcriber.run([Recording("long", file)], memory))
        undisturbed = transcribed(transcriber.hear(Recording("long", file)))
    typer.echo(f"killed when {kept} windows were kept; {len(undisturbed)} words", err=True)
    assert kept
    words, apart_ms = differences(undisturbed, again)
    yield Check("resume_differences", words + (apart_ms > 0), "words", 0)


def _memory(folder: Path) -> Any:
    """The platform's own, over a store."""
    from asr_assets.transcription import BatchTranscription
    from resources.policy import Policy
    from resources.routing import Routing
    from resources.store import Store

    routing = Routing(MODEL.name, [MODEL], Policy())
    return BatchTranscription(Store(url=f"file://{folder}"), MODEL, "f", "00000001", "run", routing)


def _hear_with_memory(pipe: Connection, file: Path, folder: Path) -> None:
    from speech import pipeline

    pipeline.KEEP_EVERY_S = 0.2
    kept: Memory = _memory(folder)

    class Telling:
        """Says when something was kept."""

        def recall(self, recording: Recording) -> Iterator[HeardWindow]:
            yield from kept.recall(recording)

        def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
            kept.keep(recording, heard)
            pipe.send("kept")

    with Transcriber(MODEL, Hardware("cpu", THREADS, batch_size=4)) as transcriber:
        list(transcriber.run([Recording("long", file)], Telling()))
    pipe.send("kept")


def main(
    seed: Annotated[int, typer.Option(help="Other sentences")] = 1,
    rounds: Annotated[int, typer.Option(help="How often each system runs")] = 3,
    hours: Annotated[float, typer.Option(help="Of the long file")] = 6.0,
    full: Annotated[bool, typer.Option(help="large-v3-turbo's shape, too")] = False,
) -> None:
    """Measure, print, write ``results/engine.json``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spoken = list(speak(seed, LENGTHS_S))
        files = [write_flac(folder / f"{n}.flac", one.samples) for n, one in enumerate(spoken)]
        checks = [*speed(folder, spoken, files, files[0], "micro", rounds)]
        for shape in ("tiny", "base", *(["turbo"] if full else [])):
            which = [n for n, length_s in enumerate(LENGTHS_S) if length_s in FEW[shape]]
            some = [spoken[n] for n in which], [files[n] for n in which]
            checks += speed(folder, *some, files[0], shape, 1 if shape == "turbo" else min(rounds, 2))
        checks += invariance(folder, files[:6])
        checks += invented(seed)
        checks += long_file(folder, spoken[-1].samples, hours)
        checks += resumed(folder, spoken[-1].samples)
    all_hold = publish("engine", checks, seed=seed, rounds=rounds, hours=hours, full=full)
    raise typer.Exit(0 if all_hold else 1)


if __name__ == "__main__":
    typer.run(main)
