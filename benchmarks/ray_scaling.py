"""How a Ray cluster on this machine scales, and whether a killed worker loses or doubles anything."""

import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import Check
from resources.models import SpeechModels
from resources.settings import HOME
from resources.store import Store
from speech import pipeline
from speech.media import LocalFile, MediaDecoder
from speech.pipeline import Heard
from speech.reading import Recording
from speech.types import HeardWindow, Transcript
from speech.workers import cores

SAMPLES = HOME / "samples" / "videos"
MODEL = "pocketsphinx"
TIMES = 2  # each sample, so that there is work for all
SPEEDUP_2 = 1.3
"""What a second worker brings where each has a core; this process and Ray's own share the two."""
NO_SLOWER = 0.8
"""More workers than cores bring nothing, but cost little, beside the number before."""


class Windows:
    """What was heard, window by window; kills one worker when asked to, after the first of them."""

    def __init__(self, kill: bool) -> None:
        self.count: Counter[tuple[str, float]] = Counter()
        self._kill = kill

    def recall(self, _: Recording) -> tuple[()]:
        """See :class:`speech.reading.Memory`."""
        return ()

    def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
        """See :class:`speech.reading.Memory`."""
        self.count.update((recording.id, window.start_s) for window in heard)
        if self._kill:
            os.kill(_actors()[0], signal.SIGKILL)
            self._kill = False


def _actors() -> list[int]:
    shown = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in shown.splitlines() if "ray::_There" in line]


def _recordings(folder: Path) -> list[Recording]:
    samples = []
    with MediaDecoder() as decoder:
        for sample in sorted(path.with_suffix("") for path in SAMPLES.glob("*.ctm")):
            (video,) = (
                path for path in SAMPLES.glob(f"{sample.name}.*") if path.suffix not in (".ctm", ".json")
            )
            with LocalFile(video) as media:
                decoder.extract(media, video.name, folder / f"{sample.name}.flac")
            samples.append(folder / f"{sample.name}.flac")
    return [Recording(f"{flac.stem} {n}", flac) for n in range(TIMES) for flac in samples]


@contextmanager
def _every_window_kept() -> Iterator[None]:
    before, pipeline.KEEP_EVERY_S = pipeline.KEEP_EVERY_S, 0.0
    try:
        yield
    finally:
        pipeline.KEEP_EVERY_S = before


def _heard(recordings: list[Recording], workers: int, windows: Windows) -> tuple[list[Heard], float]:
    models = SpeechModels(path=str(HOME / "models.toml"), backend="ray", workers=workers)
    with models.load(models.get(MODEL), Store(url="file:///none"), "0") as transcriber:
        list(transcriber.run(recordings[:workers]))  # all have loaded the model
        began = time.perf_counter()
        return list(transcriber.run(recordings, windows)), time.perf_counter() - began


def ray_scaling() -> Iterator[Check]:
    """Throughput by the number of workers; then one is killed at work, and the words must be the same."""
    with tempfile.TemporaryDirectory() as folder, _every_window_kept():
        recordings = _recordings(Path(folder))
        undisturbed = Windows(kill=False)
        alone, alone_s = _heard(recordings, 1, undisturbed)
        audio_s = sum(heard.outcome.duration_s for heard in alone if isinstance(heard.outcome, Transcript))
        yield Check.at_least("ray_rtfx_1", audio_s / alone_s, "x", 1)
        fewer_s = alone_s
        for workers in (2, 4):
            _, took_s = _heard(recordings, workers, Windows(kill=False))
            yield Check.at_least(
                f"ray_rtfx_{workers}", audio_s / took_s, "x", round(NO_SLOWER * audio_s / fewer_s, 2)
            )
            if workers == 2 and cores() >= 2:
                yield Check.at_least("ray_speedup_2", alone_s / took_s, "x", SPEEDUP_2)
            fewer_s = took_s
        killed = Windows(kill=True)
        heard, _ = _heard(recordings, 2, killed)
    expected = {one.id: one.outcome for one in alone}
    as_expected = [one for one in heard if one.outcome == expected[one.id]]
    yield Check("ray_lost", len(recordings) - len({one.id for one in as_expected}), "videos", 0)
    doubled = (len(heard) - len(recordings)) + (killed.count - undisturbed.count).total()
    yield Check("ray_doubled", doubled, "videos and windows", 0)


if __name__ == "__main__":
    for check in ray_scaling():
        print(f"{check.check}: {check.value:.2f} {check.unit}, {check.bar}: {'yes' if check.holds else 'NO'}")
