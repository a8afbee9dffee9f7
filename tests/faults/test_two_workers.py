"""Two at work on one batch."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    DagsterInstance,
)

from resources import layout
from resources.aws import S3
from resources.models import SpeechModels
from resources.retries import all_pending
from resources.source import Source
from resources.store import Store
from tests.faults.bench import ALWAYS, OTHER, SILENT, SPOKEN, Bench, Bucket
from tests.faults.proxy import Fault, Trouble, proxy


@pytest.mark.case(33)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "probed/"),
        ("PUT", "audio/"),
        ("PUT", "extracted/"),
        ("GET", "/unfinished/"),
        ("PUT", "unfinished/"),
        ("PUT", "attempts/"),
        ("PUT", "transcripts/"),
        ("POST", "delete"),
    ],
)
def test_a_worker_that_is_overtaken_on_its_batch_ends_the_same(
    method: str,
    path: str,
    videos: Bucket,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    ends: list[bytes | None] = []
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), Store(url=f"s3://{videos.name}/store"), models, instance)
        (batch,) = bench.take_in()
        if path == "/unfinished/":
            # What a worker that was killed has left: found, and gone before it is read.
            with proxy(s3_server, Trouble(Fault.EXPIRED, "PUT", "attempts/", ALWAYS)) as breaking:
                monkeypatch.setenv("AWS_ENDPOINT_URL", breaking.url)
                assert not bench.process(batch).success

        def overtake() -> None:
            with monkeypatch.context() as fast:  # a store's client is made when a run begins
                fast.setenv("AWS_ENDPOINT_URL", s3_server)
                assert bench.process(batch).success
                ends.append(bench.published())

        overtaken = Trouble(overtake, method, path)
        through.troubles.append(overtaken)
        monkeypatch.setenv("AWS_ENDPOINT_URL", through.url)
        assert bench.process(batch).success
    assert overtaken.struck == 1
    assert ends == [bench.published()]
    assert bench.ended(batch) == {"in/quiet.mp4": "no_speech", "in/talk.mp4": "ok"}
    assert list(bench.store.list(layout.UNFINISHED)) == []
    assert list(all_pending(bench.store)) == []


def folder_bench(root: Path, store: str, instance: DagsterInstance) -> Bench:
    return Bench(
        Source(url=f"file://{root / 'in'}", s3=S3()),
        Store(url=f"file://{root / store}"),
        SpeechModels(path=str(root / "models.toml"), workers=1),
        instance,
    )


def work_at_once(root: Path, together: Any) -> None:
    """What one of two processes does."""
    with DagsterInstance.ephemeral() as instance:
        bench = folder_bench(root, "both", instance)
        together.wait(60)
        assert bench.process("00000001").success


@pytest.mark.case(33)
@pytest.mark.long
def test_two_processes_on_one_batch_at_once_publish_it_once(
    models: SpeechModels, instance: DagsterInstance, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name, sample in (("quiet", SILENT), ("talk", SPOKEN), ("other", OTHER)):
        shutil.copy2(sample, tmp_path / "in" / f"{name}.mp4")
    alone, both = (folder_bench(tmp_path, store, instance) for store in ("alone", "both"))
    for bench in (alone, both):
        assert bench.take_in() == ["00000001"]
    assert alone.process("00000001").success
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [context.Process(target=work_at_once, args=(tmp_path, together)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert both.published() == alone.published()
    assert both.ended("00000001") == {"other.mp4": "ok", "quiet.mp4": "no_speech", "talk.mp4": "ok"}
    assert list(both.store.list(layout.UNFINISHED)) == []
