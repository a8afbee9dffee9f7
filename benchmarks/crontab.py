"""What people have who begin: a process and a model load for each file, one after another, from a crontab."""

import csv
import io
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from benchmarks.processes import program, settings_below
from benchmarks.report import Check
from resources.settings import HOME

FILES = 48
MODEL = "micro_whisper"
SAMPLES = ("school.mp4", "weather.mp4", "market.mp4", "library.mp4")
SAID = "SELECT video_key, string_agg(word, ' ' ORDER BY word_index) FROM words_current GROUP BY ALL"
DONE_S = 1200


def crontab() -> Iterator[Check]:
    """The same files and the same engine on this machine, either way; the same words have to come."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "videos").mkdir()
        for number in range(FILES):
            shutil.copy(
                HOME / "samples" / "videos" / SAMPLES[number % len(SAMPLES)],
                root / "videos" / f"{number:03}.mp4",
            )
        weights = HOME / "micro_whisper" / "checkpoint"
        (root / "models.toml").write_text(
            f'[{MODEL}]\nengine = "whisper"\nweights = "{weights}"\nchampion = true\n'
        )
        began = time.perf_counter()
        one_by_one = {
            path.name: _asr(root, "transcribe", str(path)) for path in sorted((root / "videos").iterdir())
        }
        crontab_s = time.perf_counter() - began
        began = time.perf_counter()
        _asr(root, "run")
        platform_s = time.perf_counter() - began
        together = dict(csv.reader(io.StringIO(_asr(root, "sql", "--format", "csv", SAID))))
    differ = sum(text.split() != together[name].split() for name, text in one_by_one.items())
    typer.echo(f"{FILES} files: {crontab_s:.1f} s one by one, {platform_s:.1f} s by asr run", err=True)
    yield Check("crontab_other_words", differ, "files", 0)
    yield Check.at_least("speedup_crontab", crontab_s / platform_s, "x", 5)


def _asr(root: Path, *arguments: str) -> str:
    return subprocess.run(
        [program("asr"), *arguments],
        env=settings_below(root),
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=DONE_S,
        check=True,
    ).stdout
