"""A hundred thousand batches, three model versions: the UI's answers and the sensors' ticks, in seconds."""

import json
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import typer
import yaml
from dagster import AssetKey, DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType

from benchmarks.batches import copy_run, differences, write_log
from benchmarks.postgres import server
from benchmarks.processes import free_port, started
from benchmarks.report import Check, publish
from resources import layout
from resources.numbered_log import NumberedLog
from resources.observations import IngestEntry, batch_key
from resources.settings import HOME
from resources.store import Store
from sensors.batches import Steps
from sensors.retiring import sum_up
from speech.types import Seconds

BATCHES_THERE, VIDEOS = 100_000, 4
NEW = 100
ROUNDS = 3
UI_S: Seconds = 5
TICK_S: Seconds = 10
NEVER_COUNTED_S: Seconds = 60
ARMS = ("one", "two", "three")
ASSETS = [["raw_videos"], ["extracted_audio"], *(["transcripts", arm] for arm in ARMS)]
WATCHED = ("new_videos", "new_batches")

GRAPH = """
query ($assets: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $assets, loadMaterializations: true) {
    id
    assetKey { path }
    partitionStats { numPartitions numMaterialized numMaterializing numFailed }
    assetMaterializations(limit: 1) { timestamp runId stepKey }
    assetChecksOrError { ... on AssetChecks { checks {
      name executionForLatestMaterialization { id runId status timestamp evaluation { severity } }
    } } }
  }
  assetsLatestInfo(assetKeys: $assets) {
    id unstartedRunIds inProgressRunIds latestRun { id status endTime }
  }
}
"""
"""Of each box in the graph of assets: how many batches are materialized, the newest, its checks, its runs."""

STATUSES = """
query ($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) { ... on AssetNode {
    id
    partitionKeysByDimension { name type partitionKeys }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions materializingPartitions failedPartitions
    } }
  } }
}
"""
"""Of one asset's page: each batch, and its state."""

QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "graph": (GRAPH, {"assets": [{"path": path} for path in ASSETS]}),
    "batches": (STATUSES, {"asset": {"path": ASSETS[-1]}}),
}
SET_CURSOR = """
mutation ($sensor: SensorSelector!, $cursor: String) {
  setSensorCursor(sensorSelector: $sensor, cursor: $cursor) { __typename }
}
"""
LOCATION = {"repositoryLocationName": "asr_platform", "repositoryName": "__repository__"}


def many_batches(batches: int = BATCHES_THERE) -> Iterator[Check]:
    """The UI's answers and the sensors' ticks, over SQLite and PostgreSQL; the bars are the slowest's."""
    ui: list[Seconds] = []
    ticks: list[Seconds] = []
    with TemporaryDirectory(prefix="asr-") as temporary, server() as url:
        root = Path(temporary)
        (root / "videos").mkdir()
        write_log(Store(url=f"file://{root}/data"), f"file://{root}/videos", batches, VIDEOS)
        postgres = {"DAGSTER_POSTGRES_HOST": "", "PGHOST": url.partition("host=")[2]}
        postgres |= {"DAGSTER_POSTGRES_DB": "postgres", "DAGSTER_POSTGRES_USER": "postgres"}
        postgres |= {"DAGSTER_POSTGRES_PASSWORD": "none"}
        for database in ("sqlite", "postgres"):
            environment = os.environ | postgres | _settings(root, database)
            with _environment(environment):
                began = time.monotonic()
                yield Check(f"rows_differ_{database}", _fill(root / database, batches), "rows", 0)
                typer.echo(f"{database} is filled after {time.monotonic() - began:.0f} s", err=True)
                with _code(root):
                    answers = _ask(root)
                    counted = _never_counted(root, root / database)
                with _code(root):
                    ended = _tick(root, root / database)
                ui += answers.values()
                for name, seconds in answers.items():
                    yield Check(f"ui_{name}_{database}_s", seconds, "s", UI_S, below=True)
                ticks += ended.values()
                for name, seconds in ended.items():
                    yield Check(f"tick_{name}_{database}_s", seconds, "s", TICK_S, below=True)
                yield Check(f"ui_never_counted_{database}_s", counted, "s", NEVER_COUNTED_S, below=True)
    yield Check("ui_100k_s", max(ui), "s", UI_S, below=True)
    yield Check("tick_100k_s", max(ticks), "s", TICK_S, below=True)


def _settings(root: Path, database: str) -> dict[str, str]:
    home = root / database
    home.mkdir()
    deploy = HOME / "deploy"
    config = yaml.safe_load((deploy / "local" / "dagster.yaml").read_text())
    if database == "postgres":
        config["storage"] = yaml.safe_load((deploy / "compose" / "dagster.yaml").read_text())["storage"]
    config["concurrency"]["runs"]["max_concurrent_runs"] = 0  # ticks alone are measured
    (home / "dagster.yaml").write_text(yaml.safe_dump(config))
    arms = [f'[{arm}]\nengine = "pocketsphinx"\nchampion = {str(arm == ARMS[0]).lower()}\n' for arm in ARMS]
    (root / "models.toml").write_text("\n".join(arms))
    return {
        "ASR_SOURCE_URL": f"{root}/videos",
        "ASR_STORE_URL": f"{root}/data",
        "ASR_MODELS": f"{root}/models.toml",
        "ASR_BATCH_VIDEOS": "1",
        "ASR_BATCH_WAIT_S": "0",
        "ASR_MIN_AGE_S": "0",
        "DAGSTER_HOME": str(home),
    }


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= wanted
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ |= before


def _fill(home: Path, batches: int) -> int:
    """A database in which most batches were run, the first and the last two really; rows that differ."""
    first, copy, last, newest = map(batch_key, (1, batches - 2, batches - 1, batches))
    steps = [AssetKey(path) for path in ASSETS]
    _really(first)
    with DagsterInstance.from_config(str(home)) as instance:
        copy_run(instance, first, 2, batches - 2)
        _really(last)
        sum_up(instance, Steps(steps[:2], dict(zip(ARMS, steps[2:], strict=True))))  # as is done every hour
        _really(newest)
        return differences(instance, copy, newest)


def _really(batch: str) -> None:
    process = get_context("spawn").Process(target=_process, args=(batch,))
    process.start()
    process.join(300)
    assert process.exitcode == 0


def _process(batch: str) -> None:
    from asr_assets.running import Runner  # which reads the environment
    from resources.settings import Settings

    runner = Runner(Settings.from_env())
    runner.process(batch, runner.missing(batch))


def _ask(root: Path) -> dict[str, Seconds]:
    """Medians of a new webserver's first answers, and of later ones."""
    cold: dict[str, list[Seconds]] = {name: [] for name in QUESTIONS}
    warm: dict[str, list[Seconds]] = {name: [] for name in QUESTIONS}
    for _ in range(ROUNDS):
        with _webserver(root) as port:
            for name, (query, values) in QUESTIONS.items():
                cold[name].append(_seconds(port, query, values))
                warm[name] += [_seconds(port, query, values) for _ in range(ROUNDS)]
    typer.echo(f"the UI's answers, cold {cold}, warm {warm}", err=True)
    return {f"{name}_cold": statistics.median(found) for name, found in cold.items()} | {
        f"{name}_warm": statistics.median(found) for name, found in warm.items()
    }


def _never_counted(root: Path, home: Path) -> Seconds:
    """The graph where nobody has looked since the first batch, and reconciliation never ran."""
    with DagsterInstance.from_config(str(home)) as instance, _webserver(root) as port:
        instance.wipe_asset_cached_status([AssetKey(path) for path in ASSETS])
        return _seconds(port, *QUESTIONS["graph"])


def _seconds(port: int, query: str, values: dict[str, Any]) -> Seconds:
    began = time.perf_counter()
    graphql(port, query, values)
    return time.perf_counter() - began


def graphql(port: int, query: str, values: dict[str, Any]) -> Any:
    """What a webserver on this machine answers. Raises an error for one of GraphQL's."""
    body = json.dumps({"query": query, "variables": values}).encode()
    request = Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as answer:
        data = json.load(answer)
    assert "errors" not in data, data["errors"]
    return data["data"]


@contextmanager
def _code(root: Path) -> Iterator[None]:
    """The definitions, served to all that is started from then on, as deploy/compose does."""
    port = free_port()
    server = {"host": "127.0.0.1", "port": port, "location_name": LOCATION["repositoryLocationName"]}
    (root / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    with started(root, "asr", "serve", "--port", str(port)):
        _wait(lambda: _listens(port))
        yield


@contextmanager
def _webserver(root: Path) -> Iterator[int]:
    """Dagster's webserver over that and the instance that the environment says; its port."""
    port = free_port()
    with started(root, "dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml"):
        _wait(lambda: _listens(port))
        graphql(port, "{ repositoriesOrError { __typename } }", {})
        yield port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def _tick(root: Path, home: Path) -> dict[str, Seconds]:
    """The longest ticks of a new daemon until it offers new batches; medians of those in later rounds."""
    log = NumberedLog(Store(url=f"file://{root}/data"), layout.INGEST, IngestEntry)
    log.skip()
    with _webserver(root) as port:
        sensor = LOCATION | {"sensorName": "new_batches"}
        said = graphql(port, SET_CURSOR, {"sensor": sensor, "cursor": batch_key(log.tail)})["setSensorCursor"]
        assert said == {"__typename": "Sensor"}, said
    rounds: list[dict[str, Seconds]] = []
    with DagsterInstance.from_config(str(home)) as instance, ExitStack() as ended:
        for number in range(1 + ROUNDS):
            began, wanted = time.time(), log.tail + NEW
            _arrive(root, f"{home.name}-{number}")
            if not number:
                ended.enter_context(started(root, "dagster-daemon", "run", "-w", "workspace.yaml"))
            rounds.append(_round(instance, log, began, wanted))
    typer.echo(f"{home.name}: the longest ticks, by round: {rounds}", err=True)
    cold, *warm = rounds
    return {f"{name}_cold": seconds for name, seconds in cold.items()} | {
        f"{name}_warm": statistics.median(found[name] for found in warm) for name in WATCHED
    }


def _arrive(root: Path, name: str) -> None:
    """New videos, all at once, in a folder of this name."""
    folder = root / "arriving"
    folder.mkdir()
    for n in range(NEW):
        (folder / f"{n}.mp4").write_bytes(b"no video")
    folder.rename(root / "videos" / name)


def _round(
    instance: DagsterInstance, log: NumberedLog[IngestEntry], began: float, wanted: int
) -> dict[str, Seconds]:
    """Each sensor's longest tick until new videos are in the log, and some of their batches asked for."""
    _wait(lambda: log.skip() or log.tail >= wanted)
    recorded = time.time()
    _wait(lambda: any(tick.runs for tick in _ticks(instance, "new_batches") if tick.began > recorded))
    return {
        name: max(tick.seconds for tick in _ticks(instance, name) if tick.began + tick.seconds > began)
        for name in WATCHED
    }


def _wait(what: Callable[[], object]) -> None:
    until = time.monotonic() + 300
    while not what():
        assert time.monotonic() < until, "the daemon does not go on"
        time.sleep(0.5)


class _Tick(NamedTuple):
    began: float
    seconds: Seconds
    runs: int


def _ticks(instance: DagsterInstance, sensor: str) -> list[_Tick]:
    """A sensor's ticks that have ended: all that the daemon does for one is in it."""
    (state,) = [
        state
        for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        if state.instigator_name == sensor
    ]
    return [
        _Tick(tick.timestamp, tick.end_timestamp - tick.timestamp, len(tick.run_ids))
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        if tick.end_timestamp
    ]


def main(batches: int = BATCHES_THERE) -> None:
    """Measure, print, write ``results/many_batches.json``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and nothing that was started stays
    raise typer.Exit(0 if publish("many_batches", [*many_batches(batches)], batches=batches) else 1)


if __name__ == "__main__":
    typer.run(main)
