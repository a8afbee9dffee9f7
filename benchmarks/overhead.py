"""What a run adds to the work of a batch: the same decoding and hearing, with the platform and without."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest.mock import patch

import av
import typer

from benchmarks import paced
from benchmarks.corpus import speak
from benchmarks.report import Check
from speech.engines import ENGINES
from speech.types import SAMPLE_RATE

MINUTE_S = 60.0
UNLIKE = 4
"""Videos with other words; more are copies of them."""
CURVE = {1: 3, 16: 3, 256: 1}
"""Videos in a batch, and how often it is measured; the engine takes no time."""
AT_100 = 64, 3
BATCH = "00000001"
DONE_S = 900


def overhead() -> Iterator[Check]:
    """The curve, and the share of the work at an engine of 100 times real time."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        minutes = list(_minutes(root))
        for videos, times in CURVE.items():
            added = [_added(root, minutes, videos, times_real_time=0)[0] for _ in range(times)]
            typer.echo(f"{videos} videos: {_spread(added)} s more than the work", err=True)
            yield Check(
                f"overhead_s_per_video_{videos}", median(added) / videos, "s", 10 if videos == 1 else 1
            )
        videos, times = AT_100
        measured = [_added(root, minutes, videos, times_real_time=100) for _ in range(times)]
        shares = [added / work for added, work in measured]
        typer.echo(f"{videos} videos at 100 x: shares {_spread(shares)}", err=True)
        added_s = median(added for added, _ in measured)
        yield Check(f"overhead_s_per_video_{videos}", added_s / videos, "s", 1)
        yield Check("overhead_share_64", median(shares), "of the work", 0.05, below=True)


def _spread(values: list[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _minutes(root: Path) -> Iterator[Path]:
    """Videos of a minute in which somebody speaks."""
    for number, spoken in enumerate(speak(1, [MINUTE_S] * UNLIKE)):
        path = root / f"minute-{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            for first in range(0, len(spoken.samples), 1024):
                piece = spoken.samples[None, first : first + 1024]
                frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, first
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        yield path


def _added(root: Path, minutes: list[Path], videos: int, times_real_time: float) -> tuple[float, float]:
    """Seconds that a run takes more than its work alone, and those of the work; one after the other."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        desk = Path(folder)
        (desk / "videos").mkdir()
        for number in range(videos):
            shutil.copy(minutes[number % len(minutes)], desk / "videos" / f"{number:04}.mp4")
        options = f"options = {{ times_real_time = {times_real_time} }}"
        (desk / "models.toml").write_text(f'[paced]\nengine = "paced"\nchampion = true\n{options}\n')
        context = get_context("spawn")
        told = context.SimpleQueue()
        process = context.Process(target=_measure, args=(desk, told))
        process.start()
        process.join(DONE_S)
        assert process.exitcode == 0, f"a batch of {videos}: the process ended with {process.exitcode}"
        run_s, work_s = told.get()
    return run_s - work_s, work_s


def _measure(desk: Path, told: "object") -> None:
    os.environ |= {
        "ASR_SOURCE_URL": str(desk / "videos"),
        "ASR_STORE_URL": str(desk / "data"),
        "ASR_MODELS": str(desk / "models.toml"),
        "ASR_BATCH_VIDEOS": "1000",
    }
    os.environ.pop("DAGSTER_HOME", None)
    ENGINES["paced"] = paced.ENTRY
    from asr_assets.running import Runner
    from resources.settings import Settings
    from speech.workers import Crew, Here

    with patch("speech.pipeline.hire", lambda model, hardware, _: Crew([Here(model, hardware)])):
        runner = Runner(Settings.from_env())
        assert runner.ingest() == [BATCH]
        work_s = _work(desk, runner)
        began = time.perf_counter()
        runner.process(BATCH, runner.missing(BATCH))
        run_s = time.perf_counter() - began
    told.put((run_s, work_s))  # type: ignore[attr-defined]


def _work(desk: Path, runner: "object") -> float:
    """Probing, decoding and hearing, and nothing else."""
    from speech.media import LocalFile, MediaDecoder
    from speech.pipeline import Transcriber
    from speech.reading import Recording

    began = time.perf_counter()
    flacs = []
    with tempfile.TemporaryDirectory(dir=desk) as folder, MediaDecoder() as decoder:
        for video in sorted((desk / "videos").iterdir()):
            with LocalFile(video) as source:
                decoder.probe(source, video.name)
            with LocalFile(video) as source:
                flacs.append(Path(folder) / f"{video.name}.flac")
                decoder.extract(source, video.name, flacs[-1])
        with Transcriber(runner.models.get("paced")) as transcriber:  # type: ignore[attr-defined]
            heard = list(transcriber.run([Recording(flac.name, flac) for flac in flacs]))
    assert len(heard) == len(flacs)
    return time.perf_counter() - began
