"""deploy/compose: the file, the instance, and its containers' commands as processes of this machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from dagster import DagsterInstance

from asr_assets.running import INSTANCE_CONFIG
from benchmarks.processes import free_port
from tests.asr_assets.daemon import Dev, spoken, wait_for
from tests.asr_assets.test_dev import ends_of
from tests.asr_assets.test_life import everything_in
from tests.conftest import ROOT, Platform

DEPLOY = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("code", "daemon", "webserver")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_container_is_no_root_writes_to_volumes_alone_and_says_how_it_is(service: dict[str, Any]) -> None:
    assert service["user"] in ("postgres", "10001:10001")
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    places = {volume.split(":")[0] for volume in service.get("volumes", ())}
    assert places <= COMPOSE["volumes"].keys()
    assert all(wait["condition"] == "service_healthy" for wait in service.get("depends_on", {}).values())


def test_what_is_secret_is_asked_for_and_kept_out_of_git() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = dict(re.findall(r"^#?(\w+)=(.*)$", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", text)) <= example.keys()
    assert {name: value for name, value in example.items() if "PASSWORD" in name or "KEY" in name} == {
        "DAGSTER_POSTGRES_PASSWORD": "",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
    }
    ignored = ["git", "check-ignore", "--quiet", str(DEPLOY / ".env")]
    assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0
    asked = set(re.findall(r"env: (\w+)", (DEPLOY / "dagster.yaml").read_text()))
    assert all(asked <= SERVICES[name]["environment"].keys() for name in OURS)


@pytest.mark.xdist_group("postgres")
def test_the_instance_keeps_its_state_in_postgres_and_is_else_as_the_local_one(
    dagster_postgres: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in dagster_postgres.items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.from_config(str(DEPLOY)) as instance:
        storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
        assert [type(storage).__module__.split(".")[0] for storage in storages] == ["dagster_postgres"] * 3
        instance.add_dynamic_partitions("batch", ["00000001"])
        assert instance.get_dynamic_partitions("batch") == ["00000001"]
        assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
        assert instance.run_monitoring_enabled
        assert "canary" not in str(instance.get_ref())
    ours, local = (yaml.safe_load(path.read_text()) for path in (DEPLOY / "dagster.yaml", INSTANCE_CONFIG))
    assert ours.keys() - local.keys() == {"storage"}
    assert {key for key in local if ours[key] != local[key]} == {"compute_logs"}


@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("DAGSTER_POSTGRES_USER", "dagster.yaml asks for DAGSTER_POSTGRES_USER: set what is missing"),
        ("PGHOST", "PostgreSQL is out of reach (connection to server"),
    ],
)
def test_a_database_that_is_not_there_is_a_sentence(
    platform: Platform, dagster_postgres: dict[str, str], missing: str, said: str
) -> None:
    platform.keep_dagster_in({**dagster_postgres, "PGHOST": "/nonexistent"})
    del platform.env[missing]
    done = platform.asr("run")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr


class Containers:
    """The commands of the services, over one workspace, each in a process group of its own."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._port = str(free_port())
        workspace = (DEPLOY / "workspace.yaml").read_text()
        self._workspace = platform.root / "workspace.yaml"
        self._workspace.write_text(
            workspace.replace("host: code", "host: 127.0.0.1").replace("port: 4000", f"port: {self._port}")
        )

    def command(self, service: str) -> list[str]:
        program, *arguments = SERVICES[service]["command"]
        own = {"0.0.0.0": "127.0.0.1", "deploy/compose/workspace.yaml": str(self._workspace)}
        return [str(Path(sys.executable).with_name(program)), *(own.get(a, a) for a in arguments)]

    def home(self, service: str) -> Path:
        """As the entrypoint makes it; that of code is a volume."""
        home = self.platform.root / service / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEPLOY / "dagster.yaml", home)
        return home

    @contextmanager
    def started(self, service: str) -> Iterator["subprocess.Popen[bytes]"]:
        port = ["--port", self._port] if service == "code" else []
        with (self.platform.root / "containers.log").open("a") as log:
            process = subprocess.Popen(
                [*self.command(service), *port],
                env=self.platform.environment | {"DAGSTER_HOME": str(self.home(service))},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


@pytest.mark.long
@pytest.mark.xdist_group("dev")
def test_a_killed_container_goes_on_and_what_steps_print_is_in_the_bucket_without_secrets(
    platform: Platform, dagster_postgres: dict[str, str], postgres_server: str
) -> None:
    platform.env |= dagster_postgres
    platform.add("weather.mp4", "library.mp4", "street.mkv")
    containers = Containers(platform)
    unfinished = platform.root / "data" / "unfinished"
    with containers.started("daemon"), ExitStack() as ended:
        with containers.started("code"):
            platform.env["DAGSTER_HOME"] = str(containers.home("webserver"))
            webserver = Dev(platform, containers.command("webserver"))
            ended.callback(webserver.end, signal.SIGTERM)
            wait_for(lambda: any(unfinished.rglob("*.json")), 180)
        with containers.started("code"):
            wait_for(webserver.up, 90)
            wait_for(lambda: ends_of(webserver) == {"FAILURE", "SUCCESS"}, 240)
            wait_for(lambda: spoken(platform, "street.mkv", "pocketsphinx_fast"), 120)
            s3 = boto3.client("s3")
            bucket = dagster_postgres["DAGSTER_LOGS_BUCKET"]
            logs = {
                found["Key"]: s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
                for found in s3.list_objects_v2(Bucket=bucket).get("Contents", ())
            }
    assert all(key.startswith("logs/storage/") for key in logs)
    assert any(b"process_batch" in log for log in logs.values())
    assert not any(b"canary" in log for log in logs.values())
    kept = everything_in_postgres(postgres_server)
    assert "process_batch" in kept
    assert "canary" not in kept + everything_in(platform.root)


def everything_in_postgres(url: str) -> str:
    """All rows of Dagster's tables as text, and its snapshots, unpacked."""
    import psycopg

    texts = []
    with psycopg.connect(url) as connection:
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in connection.execute(tables).fetchall():
            texts.append(str(connection.execute(f'SELECT * FROM "{table}"').fetchall()))
        for (snapshot,) in connection.execute("SELECT snapshot_body FROM snapshots").fetchall():
            texts.append(zlib.decompress(snapshot).decode())
    return "\n".join(texts)
