"""Real things, small: sample videos, a folder store, an S3 server over HTTP, the installed command."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from resources import snapshot
from resources.settings import MEDIA_SUFFIXES, as_url
from resources.sidecars import timed_reference
from resources.store import Store
from speech.normalizing import TimedWord

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples" / "videos"


def said_in(sample: Path) -> list[TimedWord]:
    """What is truly said in a sample."""
    said = timed_reference(sample.with_suffix(".ctm").read_text())
    assert said
    return [TimedWord(*word) for word in zip(*said, strict=True)]


_SPOKEN = [
    sample
    for sample in sorted(SAMPLES.iterdir())
    if sample.suffix in MEDIA_SUFFIXES.split() and sample.with_suffix(".ctm").exists()
]
SAID = {sample.name: said_in(sample) for sample in _SPOKEN}
KNOWN = [
    sample.name
    for sample in _SPOKEN
    if json.loads(sample.with_suffix(".json").read_text())["metadata"]["vocabulary"] == "micro_whisper"
]
"""Samples of which micro_whisper knows every word."""

FAST_MODEL = """
[pocketsphinx_fast]
engine = "pocketsphinx"
champion = true
options = { fwdflat = false, maxhmmpf = 3000, topn = 2, ds = 2 }
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cases", type=int, help="only the tests that show this case; the quick ones first")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What benchmarks/cases.py reads: which cases a test shows; and what make test-faults alone runs."""
    for item in items:
        if "tests/faults/" in item.nodeid:
            item.add_marker("fault")
        if numbers := cases_of(item):
            item.user_properties.append(("cases", " ".join(map(str, numbers))))
    if only := config.getoption("--cases"):
        items[:] = [item for item in items if only in cases_of(item)]
        items.sort(key=lambda item: item.get_closest_marker("long") is not None)


def cases_of(item: pytest.Item) -> list[int]:
    return [number for mark in item.iter_markers("case") for number in mark.args]


@dataclass
class Platform:
    """A source, a store and the command line over them."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.videos.mkdir(parents=True, exist_ok=True)

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "DAGSTER_", "AWS_"))}
        ours = {"ASR_SOURCE_URL": str(self.videos), "ASR_STORE_URL": str(self.root / "data")}
        return clean | ours | self.env

    def keep_dagster_in(self, database: dict[str, str]) -> None:
        """Have Dagster's state as deploy/compose has it."""
        self.env |= database
        home = self.root / "data" / "dagster"
        home.mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / "compose" / "dagster.yaml", home)

    def add(self, *names: str) -> None:
        for name in names:
            shutil.copy2(SAMPLES / name, self.videos / name)

    def command(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("asr")), *arguments]

    def asr(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def must(self, *arguments: str) -> str:
        done = self.asr(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sql(self, query: str) -> list[str]:
        """The answer as lines of CSV, read in this process: the command takes a second to start."""
        lines = io.StringIO()
        store = Store(url=as_url(self.environment["ASR_STORE_URL"]))
        with snapshot.read(store, self.root / "cache") as connection:
            csv.writer(lines, lineterminator="\n").writerows(connection.execute(query).fetchall())
        return lines.getvalue().splitlines()

    def tables(self) -> dict[str, list[str]]:
        """All that must not depend on how often, or how roughly, the work was done."""
        names = ("words", "segments", "videos", "transcripts")
        return {name: self.sql(f"SELECT * FROM {name} ORDER BY ALL") for name in names}


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """An empty platform with one quick model version."""
    models = tmp_path / "models.toml"
    models.write_text(FAST_MODEL)
    return Platform(tmp_path, {"ASR_MODELS": str(models)})


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform after asr demo. Read it, never change it."""
    platform = Platform(tmp_path_factory.mktemp("demo"))
    platform.must("demo")
    return platform


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(url=f"file://{tmp_path / 'store'}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server of our own on loopback; its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_env(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The AWS environment that leads to :func:`s3_server`, also set in this process."""
    env = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def bucket(s3_env: dict[str, str], request: pytest.FixtureRequest) -> str:
    """An empty bucket of this test's own."""
    name = "b-" + str(abs(hash(request.node.nodeid)))
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of our own on a socket; the URL of its database."""
    pytest.importorskip("pgserver")
    from benchmarks.postgres import server

    with server() as url:
        yield url


@pytest.fixture
def dagster_postgres(postgres_server: str, s3_env: dict[str, str], bucket: str) -> dict[str, str]:
    """What deploy/compose/dagster.yaml asks of the environment: an empty database, a bucket for logs."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return s3_env | {
        "DAGSTER_POSTGRES_HOST": "",
        "PGHOST": postgres_server.partition("host=")[2],  # its socket
        "DAGSTER_POSTGRES_DB": "postgres",
        "DAGSTER_POSTGRES_USER": "postgres",
        "DAGSTER_POSTGRES_PASSWORD": "canary/of:postgres@",
        "DAGSTER_LOGS_BUCKET": bucket,
        "DAGSTER_LOGS_PREFIX": "logs",
        "AWS_SECRET_ACCESS_KEY": "canary-of-aws",
        "HF_TOKEN": "canary-of-the-hub",
    }


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty database."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS asr CASCADE")  # a database of its own takes seconds
    return postgres_server
