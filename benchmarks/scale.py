"""``make bench-scale``: what one core, one batch and one video cost; docs/scale.md is computed from it."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
import boto3
import typer
from dagster import DagsterInstance, RunsFilter

from benchmarks import spoken
from benchmarks.report import Check, publish
from benchmarks.warehouse import make
from resources import layout
from resources.warehouse import Warehouse
from sensors.batches import PROCESS_BATCH
from speech.media import LocalFile, MediaDecoder, read_flac
from speech.types import SAMPLE_RATE
from speech.voice import windows

SAMPLES = Path(__file__).parents[1] / "samples" / "videos"
LENGTH_S = 600.0
BUCKET = "store"
MODEL = """
[model]
engine = "pocketsphinx"
champion = true
"""
WRITES = ("PUT", "POST", "LIST")
"""Requests at the dearer of S3's two prices."""


class Ran(NamedTuple):
    """One batch: how long its run took, and the requests that all of asr run made, by kind."""

    seconds: float
    requests: Counter[str]


def long_video(sample: Path, to: Path) -> float:
    """A sample over and over, its packets copied, until it is ten minutes long; its length in seconds."""
    with av.open(str(sample)) as source, av.open(str(to), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        length = float(source.duration or 0) / 1e6
        times = int(LENGTH_S / length)
        for turn in range(times):
            source.seek(0)
            for packet in source.demux():
                if packet.dts is not None and packet.pts is not None and packet.time_base:
                    offset = round(turn * length / packet.time_base)
                    packet.dts, packet.pts = packet.dts + offset, packet.pts + offset
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
    return times * length


def sound(root: Path) -> Iterator[Check]:
    """Decoding, voice activity and the size of sound. Seconds are the CPU's: others here do not count."""
    video, flac = root / "long.mp4", root / "long.flac"
    long_video(SAMPLES / "weather.mp4", video)
    length, once = decode(video, flac, times=1)
    _, often = decode(video, flac, times=4)  # the child's own start is in both
    yield Check.at_least("extraction_rtfx", 3 * length / (often - once), "times, a core", 100)
    samples = read_flac(flac)[0]  # of one side
    list(windows(samples[:SAMPLE_RATE], 30.0))
    began = time.process_time()
    list(windows(samples, 30.0))
    yield Check.at_least("voice_rtfx", length / (time.process_time() - began), "times, a core", 50)
    yield Check("sound_mb_per_hour", flac.stat().st_size / length * 3600 / 1e6, "MB", 115.2)


def decode(video: Path, flac: Path, times: int) -> tuple[float, float]:
    """The sound's length, and the seconds of CPU of a child that extracts it so many times."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with MediaDecoder() as decoder, LocalFile(video) as file:
        for _ in range(times):
            length = decoder.extract(file, video.name, flac).duration_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return length, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def words(root: Path, seed: int, batches: int) -> Iterator[Check]:
    """What a word takes: of the store, and of the copy that is published."""
    store = make(root, seed, batches * len(spoken.MODELS) * spoken.SHAPE.rows)
    warehouse = Warehouse(path=str(root / "warehouse.duckdb"))
    with warehouse.exclusive() as path:
        report = warehouse.load(store, lambda *_: None)
    stored = sum(found.size for found in store.list(layout.TRANSCRIPTS))
    yield Check("store_bytes_per_word", stored / report.words, "bytes", 50)
    yield Check("copy_bytes_per_word", path.stat().st_size / report.words, "bytes", 100)


@contextmanager
def counting_s3() -> Iterator[tuple[str, Counter[str]]]:
    """An S3 server on loopback that counts requests: its URL and the counts."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app, counts = DomainDispatcherApplication(create_backend_app), Counter[str]()

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        listing = environ["REQUEST_METHOD"] == "GET" and "list-type" in environ.get("QUERY_STRING", "")
        counts["LIST" if listing else environ["REQUEST_METHOD"]] += 1
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}", counts
    finally:
        server.shutdown()


def run(root: Path, videos: int) -> Ran:
    """asr run over one batch of recordings in which nobody speaks, its store a bucket."""
    source, home, models = root / "videos", root / "home", root / "models.toml"
    source.mkdir(parents=True)
    for number in range(videos):
        shutil.copy(SAMPLES / "silent.mp4", source / f"{number:04d}.mp4")
    models.write_text(MODEL)
    with counting_s3() as (url, counts):
        ours = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "ASR_SOURCE_URL": str(source),
            "ASR_STORE_URL": f"s3://{BUCKET}/{root.name}",
            "ASR_WAREHOUSE": str(root / "warehouse.duckdb"),
            "ASR_MODELS": str(models),
            "DAGSTER_HOME": str(home),
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ASR_", "DAGSTER_"))}
        credentials = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **credentials).create_bucket(
            Bucket="store"
        )
        counts.clear()
        asr = str(Path(sys.executable).with_name("asr"))
        subprocess.run([asr, "run"], env=env | ours, cwd=root, check=True, timeout=600)
        requests = Counter(counts)
    with DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records(RunsFilter(job_name=PROCESS_BATCH))
    return Ran((record.end_time or 0) - (record.start_time or 0), requests)


def batches(root: Path, few: int, many: int) -> Iterator[Check]:
    """Two batches: what grows with its videos, and what a batch costs however many it has."""
    small, large = run(root / "few", few), run(root / "many", many)
    video_s = max((large.seconds - small.seconds) / (many - few), 0.0)
    yield Check("overhead_s_per_batch", max(small.seconds - few * video_s, 0.0), "s", 30)
    yield Check("overhead_s_per_video", video_s, "s", 2)
    for kind, of_kind in (
        ("writes", lambda ran: sum(ran.requests[method] for method in WRITES)),
        ("reads", lambda ran: ran.requests.total() - sum(ran.requests[method] for method in WRITES)),
    ):
        each = (of_kind(large) - of_kind(small)) / (many - few)
        yield Check(f"{kind}_per_video", each, "requests", 20)
        yield Check(f"{kind}_per_batch", of_kind(small) - few * each, "requests", 200)


def main(seed: int = 1, word_batches: int = 10, few: int = 4, many: int = 20) -> None:
    """Measure everything."""
    checks: list[Check] = []
    for part in (sound, lambda root: words(root, seed, word_batches), lambda root: batches(root, few, many)):
        with tempfile.TemporaryDirectory() as root:
            checks += part(Path(root))
    held = publish("scale", checks, seed=seed, word_batches=word_batches, few=few, many=many)
    raise typer.Exit(not held)


if __name__ == "__main__":
    typer.run(main)
