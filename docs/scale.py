"""What it takes to hear so many hours a day: the table of docs/scale.md, from figures that were measured.

Usage::

    python -m docs.scale --gpu-rtfx 200 --gpu-price 2

What was measured is read from benchmarks/results; what was not is an option, and each has to be given or
stands in the page as an assumption.
"""

import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
DAYS, SEED = 30, 1
"""Of the simulation."""


@dataclass(frozen=True)
class Demand:
    """What comes: hours of audio a day, evenly over ``busy_hours`` of it, in videos of ``video_minutes``."""

    hours: float
    within_s: float
    busy_hours: float = 24.0
    video_minutes: float = 10.0
    batch_videos: int = 64
    words_per_hour: float = 9000.0

    @property
    def batch_hours(self) -> float:
        """Hours of audio in a full batch."""
        return self.batch_videos * self.video_minutes / 60

    @property
    def batches(self) -> float:
        """A day."""
        return self.hours / self.batch_hours

    @property
    def peak(self) -> float:
        """Hours of audio in an hour that is busy."""
        return self.hours / self.busy_hours


@dataclass(frozen=True)
class Prices:
    """In dollars: a GPU's hour, a core's; 1000 writes, 1000 reads and a GB-month of the store."""

    gpu: float
    core: float
    writes: float
    reads: float
    stored: float


def measured() -> dict[str, float]:
    """Every figure, by its check's name."""
    files = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("scale", "warehouse"))
    return {check["check"]: check["value"] for file in files for check in file["checks"]}


def waits(demand: Demand, service_s: float, servers: int) -> np.ndarray:
    """From a batch's arrival to its end, in seconds, over days of Poisson arrivals in the busy hours.

    A queue with one line and several servers: each batch goes to the server that is free first. J. Kiefer and
    J. Wolfowitz, "On the theory of queues with many servers" (1955).
    """
    rng = np.random.default_rng(SEED)
    free = [0.0] * servers
    took = []
    for day in range(DAYS):
        arrivals = np.sort(rng.uniform(0, demand.busy_hours * 3600, rng.poisson(demand.batches)))
        for arrival in arrivals + day * 86400:
            end = max(arrival, heapq.heappop(free)) + service_s
            heapq.heappush(free, end)
            took.append(end - arrival)
    return np.array(took)


def servers_needed(demand: Demand, service_s: float, budget_s: float) -> tuple[int, np.ndarray]:
    """The fewest with which 99 of 100 batches end within the budget, and how long they then take.

    Raises ValueError when a batch alone takes longer.
    """
    if service_s > budget_s:
        raise ValueError(f"a batch alone takes {service_s:.0f} s of {budget_s:.0f}: make batches smaller")
    for servers in count(max(1, int(demand.hours / demand.batch_hours * service_s / 86400))):
        took = waits(demand, service_s, servers)
        if np.quantile(took, 0.99) <= budget_s:
            return servers, took
    raise AssertionError  # count() does not end


def runs_for(gpus: int, extracting_s: float, hearing_s: float) -> int:
    """How many runs a model version's pool has to let in, for so many GPUs to have enough to hear.

    A run has its place in the pool from its first step to its last, and no GPU before it has extracted.
    """
    return math.ceil(gpus * (extracting_s + hearing_s) / hearing_s)


def plan(demand: Demand, gpu_rtfx: float, prices: Prices, start_s: float) -> dict[str, str]:
    """The column of one demand, by row."""
    of = measured()
    batch_s = demand.batch_hours * 3600
    extracting_s = batch_s / of["extraction_rtfx"]
    hearing_s = batch_s / gpu_rtfx
    overhead_s = of["overhead_s_per_batch"] + demand.batch_videos * of["overhead_s_per_video"]
    batch_words = demand.batch_hours * demand.words_per_hour
    # A batch fills, its steps start, its words are loaded, and a copy of them is published.
    around_s = 60 + overhead_s + start_s + batch_words / of["load_rows_per_s"] + 60
    apart, took = servers_needed(demand, hearing_s, demand.within_s - around_s - extracting_s)
    together, _ = servers_needed(demand, hearing_s + extracting_s, demand.within_s - around_s)
    p50, p99 = (np.quantile(took, [0.5, 0.99]) + around_s + extracting_s) / 60
    words = demand.hours * demand.words_per_hour
    writes, reads = (
        demand.batches * (of[f"{kind}_per_batch"] + demand.batch_videos * of[f"{kind}_per_video"])
        for kind in ("writes", "reads")
    )
    stored_gb = (demand.hours * of["sound_mb_per_hour"] * 1e6 + words * of["store_bytes_per_word"]) / 1e9
    core_hours = demand.hours * (1 / of["extraction_rtfx"] + 1 / of["voice_rtfx"])
    others = core_hours * prices.core + (writes * prices.writes + reads * prices.reads) / 1000

    def dollars(a_day: float) -> str:
        return f"{a_day / demand.hours:.4f} $"

    return {
        "audio in a busy hour": f"{demand.peak:,.0f} h",
        "GPUs at work on average": f"{demand.hours / gpu_rtfx / 24:.1f}",
        "GPUs, 99 of 100 batches in time": f"{apart}",
        "runs at a time, for these to be busy": f"{runs_for(apart, extracting_s, hearing_s)}",
        "GPUs, where a run extracts on its GPU's machine": f"{together}",
        "from upload to words, half / 99 of 100": f"{p50:.0f} / {p99:.0f} min",
        "cores that extract, in a busy hour": f"{demand.peak / of['extraction_rtfx']:.1f}",
        "cores beside the GPUs for voice activity": f"{demand.peak / of['voice_rtfx']:.1f}",
        "batches a day": f"{demand.batches:,.0f}",
        "words a day": f"{words / 1e6:,.0f} million",
        "the loader's day spent on them": f"{words / of['load_rows_per_s'] / 864:.2f} %",
        "the published copy grows by": f"{words * of['copy_bytes_per_word'] / 1e9:.1f} GB a day",
        "the store grows by": f"{stored_gb:,.0f} GB a day",
        "writes to the store": f"{writes / 1e3:,.0f} thousand a day",
        "reads of it": f"{reads / 1e3:,.0f} thousand a day",
        "cost of an hour of audio, GPUs always on": dollars(apart * 24 * prices.gpu + others),
        "cost of it, GPUs only while they work": dollars(demand.hours / gpu_rtfx * prices.gpu + others),
        "and to keep it for a month": dollars(stored_gb * prices.stored),
    }


def table(columns: dict[str, dict[str, str]]) -> str:
    """As Markdown."""
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    rows: Sequence[str] = list(next(iter(columns.values())))
    lines += [[row, *(column[row] for column in columns.values())] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    gpu_rtfx: Annotated[float, typer.Option(help="Of your model on your GPU: make bench-gpu measures one")],
    gpu_price: Annotated[float, typer.Option(help="Dollars for an hour of it")],
    core_price: Annotated[float, typer.Option(help="Dollars for an hour of a core")] = 0.05,
    hours: Annotated[float, typer.Option(help="Hours of audio a day")] = 10_000,
    within_minutes: Annotated[float, typer.Option(help="From upload to words that readers see")] = 60,
    busy_hours: Annotated[float, typer.Option(help="Of a day on which all of it comes, beside 24")] = 10,
    video_minutes: Annotated[float, typer.Option(help="Length of a video")] = 10,
    words_per_hour: Annotated[float, typer.Option(help="Spoken")] = 9000,
    start_s: Annotated[float, typer.Option(help="Until a step has a machine and its model")] = 120,
    write_price: Annotated[float, typer.Option(help="Dollars for 1000 writes or listings")] = 0.005,
    read_price: Annotated[float, typer.Option(help="Dollars for 1000 reads")] = 0.0004,
    store_price: Annotated[float, typer.Option(help="Dollars for a GB of the store and a month")] = 0.023,
) -> None:
    """Print the table."""
    prices = Prices(gpu_price, core_price, write_price, read_price, store_price)
    columns = {}
    for named, busy in (("around the clock", 24.0), (f"in {busy_hours:g} hours", busy_hours)):
        demand = Demand(hours, within_minutes * 60, busy, video_minutes, words_per_hour=words_per_hour)
        columns[f"{hours:,.0f} h a day, {named}"] = plan(demand, gpu_rtfx, prices, start_s)
    typer.echo(table(columns))


if __name__ == "__main__":
    typer.run(main)
