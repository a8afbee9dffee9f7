"""Run the platform's jobs from the command line: the same jobs, in this process, without a daemon."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from dagster import (
    MAX_RUNTIME_SECONDS_TAG,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    DagsterInvalidConfigError,
    RunConfig,
)
from dagster_shared.check import CheckError
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy.exc import OperationalError

from asr_assets.console import reading
from asr_assets.definitions import defs
from asr_assets.erasing import Traces, begin, remove, remove_comparisons, remove_verdicts
from asr_assets.extracted_audio import extracted_audio
from asr_assets.launchers import TAG, Launcher, become
from asr_assets.model_comparison import MODEL_COMPARISON, champion_and_others
from asr_assets.promoting import Evidence
from asr_assets.raw_videos import raw_videos
from asr_assets.transcripts import transcripts_key
from asr_assets.word_timings import WORD_TIMINGS
from resources import champions, layout, snapshot
from resources.champions import Champion
from resources.comparisons import Pair
from resources.ingest_log import IngestLog
from resources.published import read_head
from resources.retries import all_pending
from resources.routing import Routing
from resources.settings import HOME, Settings, who
from resources.telemetry import push
from sensors.batches import (
    BATCHES,
    COMPARE_MODELS,
    COPY_WORDS,
    LOAD_WORDS,
    PROCESS_BATCH,
    BatchLimits,
    at_work,
    is_materializing,
)
from sensors.metering import collect
from sensors.reconciling import reconcile
from sensors.sentences import of_ours, text_of
from speech.errors import AsrError, first_line
from speech.models import ModelVersion

INSTANCE_CONFIG = HOME / "deploy" / "local" / "dagster.yaml"


def prepare_home(settings: Settings) -> Path:
    """Make Dagster's home, and point this process and its children at it."""
    home = settings.dagster_home
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            # At once: with half of it, Dagster would go on by its own defaults ever after.
            half = config.with_suffix(".new")
            half.write_text(INSTANCE_CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
            half.replace(config)
    except OSError as error:
        raise AsrError(
            f"{home}: Dagster's home cannot be written ({error.strerror}); set DAGSTER_HOME or ASR_STORE_URL"
        ) from error
    settings.export()
    return home


def start(launcher: Launcher, settings: Settings) -> DagsterInstance:
    """Be this launcher; Dagster's instance.

    Raises AsrError when another process is, or when Dagster's own state is out of reach.
    """
    home = prepare_home(settings)
    config = home / "dagster.yaml"
    try:
        with _told(home):
            return become(launcher, home)
    except (DagsterInvalidConfigError, CheckError) as error:
        named = re.findall(r"\benv: *(\w+)", config.read_text(encoding="utf-8"))
        if missing := [name for name in named if name not in os.environ]:
            raise AsrError(f"{config} asks for {', '.join(missing)}: set what is missing") from error
        raise AsrError(f"{config}: {first_line(error)}; correct it, or install what it names") from error


@dataclass
class Runner:
    """The platform in one process."""

    settings: Settings
    workers: int = 1

    def __post_init__(self) -> None:
        self.instance = start(Launcher.COMMAND_LINE, self.settings)
        resources = defs.resources or {}
        self.source, self.store = resources["source"], resources["store"]
        self.models = resources["speech_models"]

    @cached_property
    def routing(self) -> Routing:
        """Who hears what, as it was when this was first asked."""
        return Routing.of(self.models, self.store)

    def ingest(self) -> list[str]:
        """Record what is new and what is gone, nothing being too young or too few; all batches there are."""
        log = IngestLog(self.store)
        reconcile(self.source, log, BatchLimits.of(self.settings).at_once)
        return log.batches

    def missing(self, batch: str) -> list[AssetKey]:
        """What has to be materialized before each enabled model, as now defined, has published the batch."""
        transcripts, routing = [], self.routing
        for model in self.models.enabled:
            head = read_head(self.store, layout.transcripts(model.name, batch))
            now = model.fingerprint, routing.state(model.name, batch)
            if (head.fingerprint, head.routing) != now if head else routing.takes(model.name, batch):
                transcripts.append(transcripts_key(model.name))
        if not transcripts or self.store.head(layout.extracted(batch)):
            return transcripts  # the audio is there, so the source need not be
        return [raw_videos.key, extracted_audio.key, *transcripts]

    def failed(self) -> list[str]:
        """Batches with videos that may end otherwise now."""
        return sorted({pending.batch for pending in all_pending(self.store)})

    def to_try_again(self, batch: str) -> list[AssetKey]:
        """What has to be materialized once more for videos of the batch that may end otherwise now."""
        names = {model.name for model in self.models.enabled}
        failed = [pending.model for pending in all_pending(self.store, batch) if pending.model in names]
        return [raw_videos.key, extracted_audio.key, *map(transcripts_key, failed)] if failed else []

    def erase(self, keys: list[str]) -> int:
        """Remove every trace of all versions of these keys of the source; how many videos that were.

        Raises AsrError for a key that was never seen, and when a run is at work on one of them; then the
        same command goes on once it has ended.
        """
        log = IngestLog(self.store)
        traces = begin(self.store, log, self.source.name, keys)
        self._nobody_at(traces)
        remove(self.store, traces)
        self._nobody_at(traces)  # nor anybody who began meanwhile, with what was there before
        remove_comparisons(self.store, traces)  # who begins now compares what is left
        self.load()
        snapshot.delete_former(self.store)
        remove_verdicts(self.store, traces)
        self.copy()
        log.erase(traces.video_ids, traces.entries, done=True)
        return len(traces.video_ids)

    def _nobody_at(self, traces: Traces) -> None:
        busy = [f"batch {batch} is" for batch in traces.batches if at_work(self.instance, batch=batch)]
        if is_materializing(self.instance, MODEL_COMPARISON):  # of whichever batches
            busy.append("the comparison of model versions is")
        if busy:
            raise AsrError(
                f"{busy[0]} being worked on: the erasure has begun, and the same command ends it once that "
                "run has ended"
            )

    def process(self, batch: str, assets: list[AssetKey]) -> None:
        """One run of process_batch. Raises :class:`~speech.errors.AsrError` when a step or check fails."""
        assert BATCHES.name is not None
        with _told(self.settings.dagster_home):
            self.instance.add_dynamic_partitions(BATCHES.name, [batch])
        # All of it: what a run's config leaves out would be as if nobody had set it.
        speech_models = {**self.models.model_dump(), "workers": self.workers}
        self._execute(PROCESS_BATCH, batch, assets, {"speech_models": {"config": speech_models}})

    def load(self) -> None:
        """One run of load_words."""
        self._execute(LOAD_WORDS, None, None, {})

    def copy(self) -> None:
        """One run of copy_words, where a PostgreSQL database is set."""
        if self.settings.postgres_url:
            self._execute(COPY_WORDS, None, None, {})

    def meter(self) -> None:
        """Send metrics, where a collector is set. Raises AsrError when it does not take them."""
        if self.settings.otlp_endpoint:
            published = [extracted_audio.key, *(transcripts_key(model.name) for model in self.models.enabled)]
            push(list(collect(self.instance, self.store, WORD_TIMINGS, published, datetime.now(UTC))))

    def compare(self, *pairs: Pair) -> None:
        """One run of compare_models: these pairs, or the champion and each of the others there are."""
        if not (pairs or champion_and_others(self.routing)):
            return
        config = {"model_comparison": {"config": {"pairs": [list(pair) for pair in pairs]}}}
        self._execute(COMPARE_MODELS, None, None, {}, config)

    def promote(self, model: ModelVersion, over: Champion, evidence: Evidence) -> None:
        """Make a model version champion, and its words the current ones."""
        champions.promote(self.store, model.name, over, who(), model.fingerprint, evidence.as_json())
        self.load()
        self.copy()

    def roll_back(self) -> Champion:
        """Make the former champion champion again. Raises AsrError when there was none.

        Where the last change was cut off before it reached the warehouse, that is all it brings about.
        """
        if not (champion := self.crowned_and_not_loaded()):
            champion = champions.roll_back(self.store, who(), {model.name for model in self.models.enabled})
        self.load()
        self.copy()
        return champion

    def crowned_and_not_loaded(self) -> Champion | None:
        """The champion, if readers do not know yet who it is."""
        champion = champions.reigning(self.store)
        with reading(self.settings) as connection:
            (newest,) = connection.execute("SELECT max(number) FROM champions").fetchone() or (None,)
        return champion if champion and champion.number != newest else None

    def _execute(
        self,
        job: str,
        partition: str | None,
        assets: list[AssetKey] | None,
        resources: dict[str, Any],
        ops: dict[str, Any] | None = None,
    ) -> None:
        quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
        with _told(self.settings.dagster_home):
            result = defs.resolve_job_def(job).execute_in_process(
                run_config=RunConfig(loggers=quiet, resources=resources, ops=ops),
                instance=self.instance,
                partition_key=partition,
                asset_selection=assets,
                # Which a daemon beside it could not end, and shall not count as ended.
                tags={TAG: Launcher.COMMAND_LINE.value, MAX_RUNTIME_SECONDS_TAG: "0"},
                raise_on_error=False,
            )
        failures = [(e.step_key, e.step_failure_data.error) for e in result.get_step_failure_events()]
        if any(_interrupted(error) for _, error in failures):
            raise KeyboardInterrupt
        problems = [f"{step} failed: {_sentence(error)}" for step, error in failures]
        problems += [
            f"check {check.check_name} of {check.asset_key.to_user_string()} failed"
            for check in result.get_asset_check_evaluations()
            if not check.passed and check.severity is AssetCheckSeverity.ERROR
        ]
        if problems or not result.success:
            where = f"batch {partition}: " if partition else ""
            what = "; ".join(problems) or f"{job} failed"
            raise AsrError(f"{where}{what} (run {result.run_id}; asr dev shows its log)")


@contextmanager
def _told(home: Path) -> Iterator[None]:
    """What Dagster raises when its own database cannot be written, or reached, in a sentence."""
    try:
        yield
    except (OperationalError, sqlite3.OperationalError) as error:
        said = error.orig if isinstance(error, OperationalError) else error
        raise AsrError(
            f"{home}: Dagster cannot keep its own state there ({said}); make room, or set DAGSTER_HOME"
        ) from error
    except _lost_connection() as error:
        why = first_line(getattr(error.__cause__, "orig", error))
        raise AsrError(
            f"PostgreSQL is out of reach ({why}), where {home / 'dagster.yaml'} has Dagster keep its state: "
            "start it, or correct DAGSTER_POSTGRES_HOST and its kin"
        ) from error


def _lost_connection() -> tuple[type[Exception], ...]:
    """What dagster-postgres raises once it has asked often enough; it need not be installed."""
    try:
        from dagster_postgres.utils import DagsterPostgresException
    except ImportError:
        return ()
    return (DagsterPostgresException,)


def _interrupted(error: SerializableErrorInfo | None) -> bool:
    return error is not None and error.cls_name == "DagsterExecutionInterruptedError"


def _sentence(error: SerializableErrorInfo | None) -> str:
    """Our own message where there is one in the chain of causes, else the innermost."""
    if ours := of_ours(error):
        return ours
    while error and error.cause:
        error = error.cause
    return text_of(error) if error else "no error was recorded"
