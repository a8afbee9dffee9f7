"""``make bench-workers``: one model with many workers, many models, or one that takes batches?

The table that it prints stands in docs/ml-engineer.md.
"""

import resource
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import converted, random_checkpoint, speak, write_flac
from benchmarks.systems import FORCED_TOKENS
from speech.engines import Hardware
from speech.models import ModelVersion
from speech.pipeline import Transcriber
from speech.reading import Recording
from speech.types import SAMPLE_RATE


class Way(NamedTuple):
    """How cores are used: processes with a model each, workers in each, threads of each, windows at once."""

    what: str
    models: int
    num_workers: int
    cpu_threads: int
    batch_size: int


WAYS = [
    Way("one after the other", 1, 1, 1, 1),
    Way("one after the other, more threads", 1, 1, 2, 1),
    Way("one model, workers", 1, 2, 1, 2),
    Way("models", 2, 1, 1, 1),
    Way("batches", 1, 1, 1, 16),
    Way("batches, more threads", 1, 1, 2, 16),
    Way("one model, workers, batches", 1, 2, 1, 32),  # each worker takes half of them
    Way("models, batches", 2, 1, 1, 16),
]


def _run(pipe: Connection, way: Way, weights: Path, files: list[Path]) -> None:
    model = ModelVersion(
        "study",
        "faster_whisper",
        weights=str(weights),
        temperatures=(),
        options={"max_tokens": FORCED_TOKENS},
        runtime={"num_workers": way.num_workers, "cpu_threads": way.cpu_threads},
    )
    hardware = Hardware("cpu", way.cpu_threads, way.batch_size)
    with Transcriber(model, hardware, way.models if way.models > 1 else None) as transcriber:
        list(transcriber.run([Recording(str(n), files[0]) for n in range(way.models)]))  # all are loaded
        began = time.perf_counter()
        list(transcriber.run(Recording(str(file), file) for file in files))
        took = time.perf_counter() - began
    own, children = (
        resource.getrusage(of).ru_maxrss / 1024 for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    pipe.send((took, own + way.models * children if way.models > 1 else own))


def main(
    shape: Annotated[str, typer.Option(help="tiny, base or turbo")] = "base",
    rounds: Annotated[int, typer.Option(help="How often each way is gone")] = 2,
) -> None:
    """Measure and print."""
    context = get_context("spawn")
    table = Table("", "models", "workers", "threads", "windows at once", "RTFx, median (range)", "peak MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spoken = list(speak(1, [90.0] * 4))
        files = [write_flac(folder / f"{n}.flac", one.samples) for n, one in enumerate(spoken)]
        audio_s = sum(len(one.samples) for one in spoken) / SAMPLE_RATE
        weights = converted(random_checkpoint(folder / shape, shape), folder / "ct2")
        ran: dict[Way, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                ours, theirs = context.Pipe()
                process: Any = context.Process(target=_run, args=(theirs, way, weights, files))
                process.start()
                theirs.close()
                ran[way].append(ours.recv())
                process.join(60)
    for way, found in ran.items():
        speeds = [audio_s / seconds for seconds, _ in found]
        shown = f"{median(speeds):.1f} ({min(speeds):.1f}-{max(speeds):.1f})"
        table.add_row(way.what, *map(str, way[1:]), shown, f"{max(peak for _, peak in found):.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
