"""What several kinds of faults are tried on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
)

from resources.models import SpeechModels
from resources.store import Store
from tests.conftest import FAST_MODEL
from tests.faults.bench import SILENT, SPOKEN, Bench, Bucket
from tests.faults.proxy import Proxy, proxy


@pytest.fixture
def models(tmp_path: Path) -> SpeechModels:
    path = tmp_path / "models.toml"
    path.write_text(FAST_MODEL)
    return SpeechModels(path=str(path), workers=1)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same patience, in shorter seconds."""
    monkeypatch.setattr("resources.aws.ANSWER_S", 1.0)
    monkeypatch.setattr("resources.store.ANSWER_S", 1.0)
    monkeypatch.setattr("resources.store.WAITS_S", (0.02, 0.1, 0.2))
    monkeypatch.setattr("asr_assets.raw_videos.FIRST_WAIT_S", 0.1)


@pytest.fixture
def videos(bucket: str) -> Bucket:
    return Bucket(bucket)


@pytest.fixture
def two_videos(
    videos: Bucket,
    store: Store,
    models: SpeechModels,
    instance: DagsterInstance,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Bench, Proxy, str]]:
    """A quiet and a spoken video that were taken in, through a proxy, in a batch; they are read in pieces."""
    monkeypatch.setattr("resources.source_s3._READ_AHEAD", 1 << 12)
    videos.put("in/quiet.mp4", SILENT)
    videos.put("in/talk.mp4", SPOKEN)
    with proxy(s3_server) as through:
        bench = Bench(videos.source(through), store, models, instance)
        (batch,) = bench.take_in()
        yield bench, through, batch
