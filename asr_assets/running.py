"""Run the platform's jobs from the command line: the same jobs, in this process, without a daemon."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dagster import DagsterInstance, RunConfig
from dagster_shared.error import SerializableErrorInfo

from asr_assets.definitions import defs
from asr_assets.launchers import TAG, Launcher, become
from resources import layout
from resources.ingest_log import IngestLog
from resources.published import read_head
from resources.settings import HOME, Settings
from sensors.batches import AT_ONCE, BATCHES, LOAD_WORDS, PROCESS_BATCH, ingest
from speech.errors import AsrError

INSTANCE_CONFIG = HOME / "deploy" / "local" / "dagster.yaml"


def prepare_home(settings: Settings) -> Path:
    """Make Dagster's home, and point this process and its children at it."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(INSTANCE_CONFIG.read_text(encoding="utf-8"), encoding="utf-8")
    settings.export()
    return home


@dataclass
class Runner:
    """The platform in one process."""

    settings: Settings
    workers: int = 1

    def __post_init__(self) -> None:
        home = prepare_home(self.settings)
        self.instance = DagsterInstance.get()
        become(Launcher.COMMAND_LINE, home, self.instance)
        resources = defs.resources or {}
        self.source, self.store = resources["source"], resources["store"]
        self.models = resources["speech_models"]

    def ingest(self) -> list[str]:
        """Record what is new at the source; nothing is too young or too small. The new batches."""
        return ingest(self.source, IngestLog(self.store), datetime.now(UTC), AT_ONCE)

    def unfinished(self) -> Iterator[str]:
        """Batches without published words of each enabled model version, in its present definition."""
        log = IngestLog(self.store)
        log.catch_up()
        wanted = {model.name: model.fingerprint for model in self.models.enabled}
        for batch in log.batches:
            for model, fingerprint in wanted.items():
                head = read_head(self.store, layout.transcripts(model, batch))
                if head is None or head.fingerprint != fingerprint:
                    yield batch
                    break

    def process(self, batch: str) -> None:
        """One run of process_batch. Raises :class:`~speech.errors.AsrError` when a step fails."""
        name = BATCHES.name
        assert name is not None
        self.instance.add_dynamic_partitions(name, [batch])
        self._execute(PROCESS_BATCH, batch)

    def load(self) -> None:
        """One run of load_words."""
        self._execute(LOAD_WORDS, None)

    def _execute(self, job: str, partition: str | None) -> None:
        config = RunConfig(
            loggers={"console": {"config": {"log_level": "CRITICAL"}}},
            resources={"speech_models": {"config": {"path": self.models.path, "workers": self.workers}}}
            if job == PROCESS_BATCH
            else {},
        )
        result = defs.resolve_job_def(job).execute_in_process(
            run_config=config,
            instance=self.instance,
            partition_key=partition,
            tags={TAG: Launcher.COMMAND_LINE.value},
            raise_on_error=False,
        )
        if result.success:
            return
        failed = next(iter(result.get_step_failure_events()), None)
        step = failed.step_key if failed else job
        why = _sentence(failed.step_failure_data.error) if failed else "no step says why"
        where = f"batch {partition}: " if partition else ""
        raise AsrError(f"{where}{step} failed: {why} (run {result.run_id}; asr dev shows its log)")


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
