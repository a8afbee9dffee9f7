"""Systems that turn files into timed words, each as its users call it, each in a process of its own."""

import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.corpus import FORCED_TOKENS
from speech.media import read_flac
from speech.scoring import TimedWord
from speech.types import SAMPLE_RATE, Seconds

Hearing = Callable[[list[Path]], list[list[TimedWord]]]


class Job(NamedTuple):
    """What a system is to run: a checkpoint of transformers and its conversion, on so many threads.

    ``forced``: the checkpoint never ends by itself, and is stopped after 100 tokens a window.
    """

    checkpoint: Path
    converted: Path
    threads: int
    warm_up: Path
    forced: bool = False


class Ran(NamedTuple):
    """What came of it: words of each file, the seconds it took, the most memory."""

    words: list[list[TimedWord]]
    seconds: Seconds
    peak_mb: float


def _ours(engine: str, job: Job) -> Hearing:
    from speech.engines import Hardware
    from speech.models import ModelVersion
    from speech.pipeline import Transcriber
    from speech.reading import Recording
    from speech.types import Transcript

    weights = job.checkpoint if engine == "whisper" else job.converted
    options: dict[str, Any] = {"max_tokens": FORCED_TOKENS} if job.forced else {}
    model = ModelVersion("bench", engine, weights=str(weights), temperatures=(), options=options)
    # As asr run does it: a process with one thread for each core.
    transcriber = Transcriber(model, Hardware("cpu", threads=1), workers=job.threads)
    # One window more than one of them takes at once: all of them load the model.
    sound = read_flac(job.warm_up)[: 8 * SAMPLE_RATE]
    list(transcriber.run(Recording(str(n), sound) for n in range(16 * (job.threads - 1) + 1)))

    def hear(files: list[Path]) -> list[list[TimedWord]]:
        heard = {one.id: one.outcome for one in transcriber.run(Recording(str(f), f) for f in files)}
        texts: list[list[TimedWord]] = []
        for file in files:
            outcome = heard[str(file)]
            assert isinstance(outcome, Transcript), outcome
            texts.append([TimedWord(word.text, word.start_s) for word in outcome.words])
        return texts

    return hear


def torch_engine(job: Job) -> Hearing:
    """Our whisper, through torch."""
    return _ours("whisper", job)


def ctranslate2_engine(job: Job) -> Hearing:
    """Our faster_whisper, through CTranslate2."""
    return _ours("faster_whisper", job)


def pipeline(job: Job) -> Hearing:
    """The transformers pipeline as people use it: words, chunks of 30 s, batches of 8."""
    import torch
    from faster_whisper import decode_audio
    from transformers import pipeline as of
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(job.threads)
    hear_one = of(
        "automatic-speech-recognition",
        model=str(job.checkpoint),
        chunk_length_s=30,
        batch_size=8,
        dtype="float32",
    )
    # Five beams is its own default: all here write greedily.
    asked: dict[str, Any] = {"language": "en", "task": "transcribe", "num_beams": 1}
    if job.forced:
        asked |= {"max_new_tokens": FORCED_TOKENS, "min_new_tokens": FORCED_TOKENS}

    def hear(files: list[Path]) -> list[list[TimedWord]]:
        texts = []
        for file in files:
            sound = {"raw": np.asarray(decode_audio(str(file))), "sampling_rate": 16_000}
            chunks = hear_one(sound, return_timestamps="word", generate_kwargs=dict(asked))["chunks"]
            texts.append(
                [TimedWord(chunk["text"].strip(), float(chunk["timestamp"][0] or 0.0)) for chunk in chunks]
            )
        return texts

    return hear


def faster_whisper(job: Job) -> Hearing:
    """faster-whisper's batched pipeline with word times."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(job.converted), device="cpu", compute_type="float32", cpu_threads=job.threads)
    batched = BatchedInferencePipeline(model)
    # CTranslate2 writes half of the length that it is given, in which the prompt of three tokens counts.
    forced = {"max_new_tokens": 2 * FORCED_TOKENS - 3, "suppress_tokens": [-1]}
    asked: dict[str, Any] = forced if job.forced else {}

    def hear(files: list[Path]) -> list[list[TimedWord]]:
        texts = []
        for file in files:
            segments, _ = batched.transcribe(
                str(file),
                batch_size=8,
                beam_size=1,
                temperature=0.0,
                word_timestamps=True,
                language="en",
                **asked,
            )
            texts.append([TimedWord(w.word.strip(), w.start) for s in segments for w in s.words or ()])
        return texts

    return hear


SYSTEMS = {
    "our torch engine": torch_engine,
    "our ctranslate2 engine": ctranslate2_engine,
    "transformers pipeline": pipeline,
    "faster-whisper batched": faster_whisper,
}


def _serve(pipe: Connection, system: str, job: Job) -> None:
    hear = SYSTEMS[system](job)
    hear([job.warm_up])
    pipe.send(None)
    while (files := pipe.recv()) is not None:
        began = time.perf_counter()
        words = hear(files)
        seconds = time.perf_counter() - began
        pipe.send(Ran(words, seconds, peak_mb()))


def peak_mb() -> float:
    """The most memory that this process and its children ever had, in MB."""
    children = Path("/proc/self/task").glob("*/children")
    processes = ["self", *" ".join(path.read_text() for path in children).split()]
    lines = [line for pid in processes for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def side_by_side(job: Job, files: list[Path], rounds: int) -> Iterator[dict[str, Ran]]:
    """Each system once a round, one after the other, so that what slows the machine slows them all."""
    context = get_context("spawn")
    pipes = {}
    for system in SYSTEMS:
        pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, system, job)).start()
        theirs.close()
        pipe.recv()
        pipes[system] = pipe
    for _ in range(rounds):
        ran = {}
        for system, pipe in pipes.items():
            pipe.send(files)
            ran[system] = pipe.recv()
        yield ran
    for pipe in pipes.values():
        pipe.send(None)  # they end, and with them their workers
