"""deploy/compose: the file, the instance, and its containers' commands as processes of this machine."""

import os
import re
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
from tests.asr_assets.image import image
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


def entrypoint(service: str) -> list[str]:
    """As a container gets it: in the file, two dollars stand for one."""
    return [word.replace("$$", "$") for word in SERVICES[service]["entrypoint"]]


@pytest.mark.parametrize("service", OURS)
def test_a_container_finds_in_its_image_what_it_begins_with(service: str, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    names = [word for word in SERVICES[service]["command"] if "/" in word]
    done = subprocess.run(
        [*entrypoint(service), "ls", "--", ".", *names],
        env={"PATH": "/usr/bin:/bin", "DAGSTER_HOME": str(tmp_path / "dagster")},
        cwd=image(tmp_path / "image"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == (DEPLOY / "dagster.yaml").read_text()


class Containers:
    """The services in what the image has: entrypoint and command, in a process group of their own."""

    def __init__(self, platform: Platform, image: Path) -> None:
        self.platform, self.image = platform, image
        self._port = str(free_port())
        workspace = image / "deploy" / "compose" / "workspace.yaml"
        here = workspace.read_text().replace("host: code", "host: 127.0.0.1")
        workspace.write_text(here.replace("port: 4000", f"port: {self._port}"))

    def command(self, service: str) -> list[str]:
        program, *arguments = SERVICES[service]["command"]
        here = ["127.0.0.1" if word == "0.0.0.0" else word for word in arguments]
        return [*entrypoint(service), str(Path(sys.executable).with_name(program)), *here]

    def environment(self, service: str) -> dict[str, str]:
        """Its folder is where the container may write; that of code is a volume."""
        home = self.platform.root / service / "dagster"
        return {"DAGSTER_HOME": str(home), "PYTHONPATH": str(self.image)}

    @contextmanager
    def started(self, service: str) -> Iterator["subprocess.Popen[bytes]"]:
        port = ["--port", self._port] if service == "code" else []
        with (self.platform.root / "containers.log").open("a") as log:
            process = subprocess.Popen(
                [*self.command(service), *port],
                env=self.platform.environment | self.environment(service),
                cwd=self.image,
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
    platform: Platform,
    dagster_postgres: dict[str, str],
    postgres_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    platform.env |= dagster_postgres
    platform.add("weather.mp4", "library.mp4", "street.mkv")
    containers = Containers(platform, image(tmp_path_factory.mktemp("image")))
    unfinished = platform.root / "data" / "unfinished"
    with containers.started("daemon"), ExitStack() as ended:
        with containers.started("code"):
            platform.env |= containers.environment("webserver")
            webserver = Dev(platform, containers.command("webserver"), containers.image)
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
