"""Run the platform's jobs from the command line: the same jobs, in this process, without a daemon."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import AssetKey, DagsterRunStatus, RunConfig, RunsFilter
from dagster_shared.error import SerializableErrorInfo

from asr_assets.definitions import defs
from asr_assets.erasing import Traces, begin, remove
from asr_assets.extracted_audio import extracted_audio
from asr_assets.launchers import TAG, Launcher, become
from asr_assets.raw_videos import raw_videos
from asr_assets.transcripts import transcripts_key
from resources import layout, snapshot
from resources.ingest_log import IngestLog
from resources.published import read_head
from resources.retries import all_pending
from resources.settings import HOME, Settings
from sensors.batches import BATCHES, LOAD_WORDS, PARTITION_TAG, PROCESS_BATCH, UNDER_WAY, BatchLimits
from sensors.reconciling import reconcile
from speech.errors import AsrError

INSTANCE_CONFIG = HOME / "deploy" / "local" / "dagster.yaml"


def prepare_home(settings: Settings) -> Path:
    """Make Dagster's home, and point this process and its children at it."""
    home = settings.dagster_home
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            config.write_text(INSTANCE_CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise AsrError(
            f"{home}: Dagster's home cannot be written ({error.strerror}); set DAGSTER_HOME or ASR_STORE_URL"
        ) from error
    settings.export()
    return home


@dataclass
class Runner:
    """The platform in one process."""

    settings: Settings
    workers: int = 1

    def __post_init__(self) -> None:
        home = prepare_home(self.settings)
        self.instance = become(Launcher.COMMAND_LINE, home)
        resources = defs.resources or {}
        self.source, self.store = resources["source"], resources["store"]
        self.models = resources["speech_models"]

    def ingest(self) -> list[str]:
        """Record what is new and what is gone, nothing being too young or too few; all batches there are."""
        log = IngestLog(self.store)
        limits = BatchLimits(videos=self.settings.batch_videos, wait_s=0, min_age_s=0)
        reconcile(self.source, self.store, log, limits)
        return log.batches

    def missing(self, batch: str) -> list[AssetKey]:
        """What has to be materialized before each enabled model, as now defined, has published the batch."""
        transcripts = []
        for model in self.models.enabled:
            head = read_head(self.store, layout.transcripts(model.name, batch))
            if head is None or head.fingerprint != model.fingerprint:
                transcripts.append(transcripts_key(model.name))
        if not transcripts or self.store.head(layout.extracted(batch)):
            return transcripts  # the audio is there, so the source need not be
        return [raw_videos.key, extracted_audio.key, *transcripts]

    def to_try_again(self) -> dict[str, list[AssetKey]]:
        """By batch, what has to be materialized once more for videos that may end otherwise now."""
        names = {model.name for model in self.models.enabled}
        again: dict[str, list[AssetKey]] = {}
        for pending in all_pending(self.store):
            if pending.model in names:
                first = [raw_videos.key, extracted_audio.key]
                again.setdefault(pending.batch, first).append(transcripts_key(pending.model))
        return again

    def erase(self, keys: list[str]) -> int:
        """Remove every trace of all versions of these keys of the source; how many videos that were.

        Raises AsrError for a key that was never seen, and when a run is at work on one of them; then the
        same command goes on once it has ended.
        """
        log = IngestLog(self.store)
        log.catch_up()
        if not log.being_erased():
            for key in keys:
                if not Traces.of(log, self.source.name, [key]).entries:
                    raise AsrError(
                        f"{key!r} is the key of no video of {self.source.name} that was ever taken in; "
                        "asr sql lists them"
                    )
        traces = begin(self.store, log, self.source.name, keys)
        self._nobody_at(traces)
        remove(self.store, traces)
        self._nobody_at(traces)  # nor anybody who began meanwhile, with what was there before
        self.load()
        snapshot.delete_former(self.store)
        log.erase(traces.video_ids, traces.entries, done=True)
        return len(traces.video_ids)

    def _nobody_at(self, traces: Traces) -> None:
        for batch in traces.batches:
            at_work = RunsFilter(tags={PARTITION_TAG: batch}, statuses=[DagsterRunStatus.QUEUED, *UNDER_WAY])
            if self.instance.get_runs(at_work, limit=1):
                raise AsrError(
                    f"batch {batch} is being worked on: the erasure has begun, and the same command ends it "
                    "once that run has ended"
                )

    def process(self, batch: str, assets: list[AssetKey]) -> None:
        """One run of process_batch. Raises :class:`~speech.errors.AsrError` when a step or check fails."""
        assert BATCHES.name is not None
        self.instance.add_dynamic_partitions(BATCHES.name, [batch])
        speech_models = {"path": self.models.path, "workers": self.workers}
        self._execute(PROCESS_BATCH, batch, assets, {"speech_models": {"config": speech_models}})

    def load(self) -> None:
        """One run of load_words."""
        self._execute(LOAD_WORDS, None, None, {})

    def _execute(
        self, job: str, partition: str | None, assets: list[AssetKey] | None, resources: dict[str, Any]
    ) -> None:
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        result = defs.resolve_job_def(job).execute_in_process(
            run_config=RunConfig(loggers=quiet, resources=resources),
            instance=self.instance,
            partition_key=partition,
            asset_selection=assets,
            tags={TAG: Launcher.COMMAND_LINE.value},
            raise_on_error=False,
        )
        failures = [(e.step_key, e.step_failure_data.error) for e in result.get_step_failure_events()]
        if any(_interrupted(error) for _, error in failures):
            raise KeyboardInterrupt
        problems = [f"{step} failed: {_sentence(error)}" for step, error in failures]
        problems += [
            f"check {check.check_name} of {check.asset_key.to_user_string()} failed"
            for check in result.get_asset_check_evaluations()
            if not check.passed
        ]
        if problems or not result.success:
            where = f"batch {partition}: " if partition else ""
            what = "; ".join(problems) or f"{job} failed"
            raise AsrError(f"{where}{what} (run {result.run_id}; asr dev shows its log)")


def _interrupted(error: SerializableErrorInfo | None) -> bool:
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _sentence(error: SerializableErrorInfo | None) -> str:
    """Our own message where there is one in the chain of causes, else the innermost."""
    ours = {kind.__name__ for kind in _kinds_of(AsrError)}
    while error and error.cause and error.cls_name not in ours:
        error = error.cause
    if error is None:
        return "no error was recorded"
    # Dagster stores "module.Class: message".
    return error.message.strip().split(": ", 1)[-1]


def _kinds_of(kind: type[AsrError]) -> set[type[AsrError]]:
    return {kind}.union(*(_kinds_of(child) for child in kind.__subclasses__()))
