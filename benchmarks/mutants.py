"""Recordings with something wrong in them, made from a seed: two thousand of them through the real graph."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import typer

from benchmarks.processes import program
from benchmarks.report import Check
from resources import snapshot
from resources.store import Store
from speech.watchdog import watchdog

SPOKEN = Path(__file__).parents[1] / "samples" / "videos" / "delayed_audio.mp4"
FORMS = {
    "mp4": ("mp4", "aac"),
    "mov": ("mov", "pcm_s16le"),
    "mkv": ("matroska", "aac"),
    "webm": ("webm", "libopus"),
    "ts": ("mpegts", "mp2"),
    "wav": ("wav", "pcm_s16le"),
    "avi": ("avi", "libmp3lame"),
    "mp3": ("mp3", "libmp3lame"),
    "flac": ("flac", "flac"),
    "ogg": ("ogg", "libopus"),
}
"""FFmpeg's container and codec for each suffix."""
FIRST_S, LAST_S = 1.6, 3.0
LONGEST_S = 3600
PEAK_MB = 1_000
"""What the largest process may take."""
MODEL = """
[quick]
engine = "pocketsphinx"
champion = true
options = { fwdflat = false, maxhmmpf = 1000, topn = 2, ds = 3 }
"""


def mutants(count: int, seed: int) -> Iterator[Check]:
    """So many, in batches of 64, by ``asr run``; each has to end as a row."""
    rng = random.Random(seed)
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "videos").mkdir()
        (root / "models.toml").write_text(MODEL)
        whole = {suffix: clip(root / f"clip.{suffix}", *form) for suffix, form in FORMS.items()}
        for number in range(count):
            suffix = rng.choice(list(whole))
            data = rng.choice(MUTATIONS)(rng, whole[suffix], whole[rng.choice(list(whole))])
            (root / "videos" / f"{number:05d}.{suffix}").write_bytes(data)
        began = time.monotonic()
        with (root / "said").open("w+") as said:
            run = subprocess.Popen(
                [program("asr"), "run", "--workers", "1"],
                env={"ASR_SOURCE_URL": str(root / "videos"), "ASR_STORE_URL": str(root / "data")}
                | {"ASR_MODELS": str(root / "models.toml"), "PATH": "/usr/bin:/bin", "HOME": temporary},
                stdout=said,
                stderr=said,
            )
            with watchdog(LONGEST_S, run.kill):
                # Its own, and that of all it started: of no other part of this program.
                _, status, used = os.wait4(run.pid, 0)
        took_s = time.monotonic() - began
        run.returncode, peak_mb = os.waitstatus_to_exitcode(status), used.ru_maxrss / 1024
        if run.returncode:
            typer.echo((root / "said").read_text()[-2000:], err=True)
        with snapshot.read(Store(url=f"file://{root / 'data'}"), root / "cache") as db:
            ended = dict(
                db.execute(
                    "SELECT coalesce(t.reason, t.status), count(*) FROM videos JOIN transcripts t "
                    "USING (video_id) GROUP BY ALL ORDER BY ALL"
                ).fetchall()
            )
            bad = db.execute(
                "SELECT video_key FROM videos WHERE reason IN ('decoder_died', 'decoder_stalled')"
            ).fetchall()
        for (key,) in bad:
            shutil.copy2(root / "videos" / key, Path(temporary).parent)
            typer.echo(f"kept: {Path(temporary).parent / key}", err=True)
    typer.echo(f"{count} mutants in {took_s:.0f} s: {ended}", err=True)
    yield Check.at_least("mutated_files", sum(ended.values()), "rows", count)
    yield Check("crashes", ended.get("decoder_died", 0) + bool(run.returncode), "", 0)
    yield Check("hangs", ended.get("decoder_stalled", 0), "", 0)
    yield Check("peak_mb", peak_mb, "MB", PEAK_MB)


def clip(path: Path, container: str, codec: str) -> bytes:
    """A second of speech."""
    with (
        av.open(str(SPOKEN)) as spoken,
        av.open(str(path), "w", format=container) as output,
    ):
        rate = 48_000
        stream = output.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.format.name if stream.format else "s16", "mono", rate)
        for frame in spoken.decode(audio=0):
            if FIRST_S <= (frame.time or 0.0) < LAST_S:
                frame.pts = None
                for resampled in resampler.resample(frame):
                    output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))
    return path.read_bytes()


def _flipped(rng: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data)
    for _number in range(rng.choice((1, 4, 64, 1024))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _header_flipped(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return _flipped(rng, data[:600], other) + data[600:]


def _length_changed(rng: random.Random, data: bytes, _: bytes) -> bytes:
    """Four bytes become a number that somebody will count, seek or allocate by."""
    place = rng.randrange(min(len(data), 4000))
    number = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)))
    return data[:place] + number.to_bytes(4) + data[place + 4 :]


def _cut(rng: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _hole(rng: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:first] + rng.choice((b"", bytes(last - first), rng.randbytes(last - first))) + data[last:]


def _twice(rng: random.Random, data: bytes, _: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:last] + data[first:]


def _spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


MUTATIONS: list[Callable[[random.Random, bytes, bytes], bytes]] = [
    *(_flipped, _header_flipped, _length_changed, _cut, _hole, _twice, _spliced),
]
