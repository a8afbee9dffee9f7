"""The platform's assets in one process, over somebody else's bucket, for tests of what goes wrong there."""

from dataclasses import dataclass
from pathlib import Path

import boto3
from dagster import (
    AssetsDefinition,
    DagsterInstance,
    ExecuteInProcessResult,
    materialize,
)

from asr_assets.extracted_audio import extracted_audio
from asr_assets.raw_videos import raw_videos
from asr_assets.transcripts import transcripts_asset
from asr_assets.word_timings import word_timings_asset
from resources import layout
from resources.aws import S3
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.published import ExtractedBatch, read_head
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from sensors.batches import BATCHES, BatchLimits
from sensors.reconciling import reconcile
from tests.conftest import SAMPLES
from tests.faults.proxy import Proxy

MODEL = "pocketsphinx_fast"

SPOKEN, SILENT = (SAMPLES / name for name in ("delayed_audio.mp4", "silent.mp4"))

OTHER = SAMPLES / "school.mp4"

AT_ONCE = BatchLimits().at_once

ALWAYS = range(10**9)


@dataclass
class Bench:
    """The platform's assets, in this process: the graph of a run, without a daemon."""

    source: Source
    store: Store
    models: SpeechModels
    instance: DagsterInstance

    @property
    def log(self) -> IngestLog:
        log = IngestLog(self.store)
        log.catch_up()
        return log

    def take_in(self) -> list[str]:
        reconcile(self.source, self.log, AT_ONCE)
        return self.log.batches

    def process(self, batch: str, *assets: AssetsDefinition) -> ExecuteInProcessResult:
        assert BATCHES.name
        self.instance.add_dynamic_partitions(BATCHES.name, [batch])
        return materialize(
            assets or [raw_videos, extracted_audio, self.transcripts],
            partition_key=batch,
            instance=self.instance,
            resources={"source": self.source, "store": self.store, "speech_models": self.models},
            raise_on_error=False,
        )

    @property
    def transcripts(self) -> AssetsDefinition:
        return transcripts_asset(self.models.get(MODEL))

    def ended(self, batch: str) -> dict[str, str]:
        """How each video of a batch ended, by its key."""
        extracted = ExtractedBatch.read(self.store, layout.extracted(batch))
        head = read_head(self.store, layout.transcripts(MODEL, batch))
        assert extracted
        assert head
        keys = {video.video.video_id: video.video.key for video in extracted.videos}
        return {keys[o.video_id]: str(o.reason or o.status) for o in head.outcomes}

    def published(self, batch: str = "00000001") -> bytes | None:
        return self.store.get(layout.transcripts(MODEL, batch))

    def load(self, folder: Path) -> None:
        model = self.models.get(MODEL)
        resources = {"store": self.store, "warehouse": Warehouse(path=str(folder / "warehouse.duckdb"))}
        materialize([word_timings_asset([MODEL], model)], instance=self.instance, resources=resources)


class Bucket:
    """Somebody else's bucket."""

    def __init__(self, name: str) -> None:
        self.name, self.client = name, boto3.client("s3")

    def put(self, key: str, video: Path | bytes) -> None:
        data = video if isinstance(video, bytes) else video.read_bytes()
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def source(self, through: Proxy) -> Source:
        return Source(url=f"s3://{self.name}/in", s3=S3(endpoint_url=through.url))
