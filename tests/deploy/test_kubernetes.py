"""deploy/kubernetes and dagster_cloud.yaml: valid where a schema is at hand, and at one with the code."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster_aws.s3 import S3ComputeLogManager
from dagster_cloud_cli.config.models import DagsterCloudYaml
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

from asr_assets.on_kubernetes import LOADER_ACCOUNT, TRANSCRIPTS_ACCOUNT, WAREHOUSE_CLAIM
from resources.settings import Settings
from tests.asr_assets.chart import COMMAND, DEPLOY, LAUNCHER, PLATFORM, VALUES
from tests.asr_assets.cluster import check
from tests.asr_assets.image import image
from tests.conftest import ROOT, Platform

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
CLOUD = yaml.safe_load((ROOT / "dagster_cloud.yaml").read_text())
SERVERS = [
    VALUES["dagsterWebserver"],
    VALUES["dagsterDaemon"],
    *VALUES["dagster-user-deployments"]["deployments"],
]
USER = 10001


@pytest.mark.parametrize("manifest", PLATFORM.values(), ids=lambda one: str(one["kind"]))
def test_manifests_are_as_kubernetes_wants_them(manifest: dict[str, Any]) -> None:
    check(manifest)


def test_code_and_files_call_things_by_the_same_names() -> None:
    settings = PLATFORM["ConfigMap", "asr-settings"]["data"]
    known = {f"ASR_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in settings if name.startswith("ASR_")} <= known
    assert settings["ASR_EXECUTOR"] == "kubernetes"
    named = set(PLATFORM)
    assert {("ServiceAccount", TRANSCRIPTS_ACCOUNT), ("ServiceAccount", LOADER_ACCOUNT)} < named
    warehouse = PLATFORM["PersistentVolumeClaim", WAREHOUSE_CLAIM]["spec"]
    assert warehouse["accessModes"] == ["ReadWriteOncePod"]
    maps = [one["name"] for server in (*SERVERS, LAUNCHER) for one in server.get("envConfigMaps", [])]
    assert {("ConfigMap", name) for name in maps} < named


def test_secrets_are_named_and_nowhere_written() -> None:
    assert not [kind for kind, _ in PLATFORM if kind == "Secret"]
    assert "postgresqlPassword" not in VALUES["postgresql"]
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    settings = PLATFORM["ConfigMap", "asr-settings"]["data"]
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "ASR_POSTGRES_URL"} & set(settings)


@pytest.mark.parametrize("server", SERVERS, ids=["webserver", "daemon", "code"])
def test_servers_are_confined_and_their_values_valid(server: dict[str, Any]) -> None:
    container = {
        "name": "dagster",
        "image": f"{server['image']['repository']}:{server['image']['tag']}",
        "imagePullPolicy": server["image"]["pullPolicy"],
        "envFrom": [{"secretRef": secret} for secret in server.get("envSecrets", [])]
        + [{"configMapRef": settings} for settings in server.get("envConfigMaps", [])],
        "readinessProbe": server.get("readinessProbe"),
        "ports": [{"containerPort": server.get("service", server).get("port", 4000)}],
        **{key: server[key] for key in ("securityContext", "resources", "volumeMounts")},
    }
    spec = {
        "containers": [{key: value for key, value in container.items() if value}],
        "securityContext": server["podSecurityContext"],
        "volumes": server["volumes"],
    }
    check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec})
    assert server["securityContext"] == LAUNCHER["securityContext"]
    assert server["podSecurityContext"] == LAUNCHER["runK8sConfig"]["podSpecConfig"]["securityContext"]
    assert server["podSecurityContext"]["runAsUser"] == USER


def test_a_command_has_a_pod_as_confined_as_a_loaders_with_an_operators_account() -> None:
    check(COMMAND)
    spec = COMMAND["spec"]
    (container,) = spec["containers"]
    image = VALUES["dagsterWebserver"]["image"]
    assert container["image"] == f"{image['repository']}:{image['tag']}"
    assert container["securityContext"] == LAUNCHER["securityContext"]
    assert container["resources"] == LAUNCHER["resources"]
    assert container["envFrom"] == [
        *({"configMapRef": settings} for settings in LAUNCHER["envConfigMaps"]),
        *({"secretRef": secret} for secret in LAUNCHER["envSecrets"]),
    ]
    assert spec["securityContext"] == LAUNCHER["runK8sConfig"]["podSpecConfig"]["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    assert ("ServiceAccount", spec["serviceAccountName"]) in PLATFORM
    claims = [one["persistentVolumeClaim"] for one in spec["volumes"] if "persistentVolumeClaim" in one]
    assert claims == [{"claimName": WAREHOUSE_CLAIM}]


def test_a_command_does_its_work_without_a_token_of_kubernetes(platform: Platform) -> None:
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": {"instance_config_map": "i"}}
    database = {"sqlite": {"base_dir": str(platform.root / "database")}}
    (platform.root / "dagster.yaml").write_text(
        yaml.safe_dump({"storage": database, "run_launcher": launcher})
    )
    (container,) = COMMAND["spec"]["containers"]
    home = platform.root / "tmp" / "dagster"
    done = subprocess.run(
        [*(word.replace("/instance", str(platform.root)) for word in container["command"]),
         *platform.command("run")],
        env=platform.environment | {"DAGSTER_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert platform.sql("SELECT count(*) FROM videos") == ["0"]
    assert (home / "dagster.yaml").read_text() == (platform.root / "dagster.yaml").read_text()


def test_the_webservers_links_to_logs_are_signed_as_every_region_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        name: value
        for one in VALUES["dagsterWebserver"].get("envConfigMaps", [])
        for name, value in PLATFORM["ConfigMap", one["name"]]["data"].items()
    }
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    secrets = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    for name, value in (given | secrets).items():
        monkeypatch.setenv(name, value)
    client = S3ComputeLogManager(bucket="words-bucket")._s3_session
    link = client.generate_presigned_url("get_object", Params={"Bucket": "words-bucket", "Key": "key"})
    assert "X-Amz-Signature=" in link


def test_the_chart_is_of_dagsters_own_version() -> None:
    (pinned,) = re.findall(r"^dagster==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"--version {pinned} " in (DEPLOY / "values.yaml").read_text()


def test_dagster_plus_gives_its_pods_what_the_chart_gives() -> None:
    (location,) = DagsterCloudYaml.model_validate(CLOUD).locations
    assert location.code_source
    assert location.code_source.module_name == "asr_assets.definitions"
    context = K8sContainerContext.create_from_config(location.container_context)
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="registry.example.com/asr-platform:0.1.0"),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
    )
    with ApiClient() as client:
        manifest = client.sanitize_for_serialization(job)  # as it is sent
    check(manifest)
    template = manifest["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["securityContext"] == LAUNCHER["securityContext"]
    assert container["resources"] == LAUNCHER["resources"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "asr-settings"}},
        {"secretRef": {"name": "asr-secrets"}},
    ]
    assert container["volumeMounts"] == LAUNCHER["volumeMounts"]
    raw = LAUNCHER["runK8sConfig"]
    assert template["spec"]["securityContext"] == raw["podSpecConfig"]["securityContext"]
    assert template["metadata"]["annotations"] == raw["podTemplateSpecMetadata"]["annotations"]
    server = context.server_k8s_config
    assert server.pod_spec_config["security_context"]["run_as_non_root"] is True
    assert server.container_config["security_context"]["read_only_root_filesystem"] is True


def test_the_image_runs_as_nobody_and_its_caches_lie_where_a_pod_may_write() -> None:
    assert f"\nUSER {USER}:{USER}\n" in DOCKERFILE
    assert re.search(r"ENV HOME=/tmp", DOCKERFILE)
    assert {"name": "tmp", "mountPath": "/tmp"} in LAUNCHER["volumeMounts"]
    assert DOCKERFILE.count("--constraint constraints.txt") == 1
    assert re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE) == ["DEVICE", "EXTRAS"]


@pytest.mark.parametrize("more", [[], ["plus"]], ids=["the chart", "Dagster+"])
def test_the_image_has_the_packages_of_its_extras(more: list[str]) -> None:
    (program,) = re.findall(r"<<PYTHON\n(.*?)^PYTHON$", DOCKERFILE, re.DOTALL | re.MULTILINE)
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", program, ",".join([extras, *more])],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = done.stdout.splitlines()
    assert set(project["dependencies"]) < set(asked)
    wanted = ["whisper", "postgres", "kubernetes", "metrics", *more]
    assert {need for extra in wanted for need in project["optional-dependencies"][extra]} < set(asked)
    assert f"EXTRAS={extras},plus" in (ROOT / "dagster_cloud.yaml").read_text()
    assert f"EXTRAS={extras},plus" in (ROOT / "docs" / "kubernetes.md").read_text()


def test_nothing_that_is_one_machines_own_gets_into_the_image(tmp_path: Path) -> None:
    deploy = image(tmp_path) / "deploy"
    assert {str(file.relative_to(deploy)) for file in deploy.rglob("*") if file.is_file()} == {
        *("compose/dagster.yaml", "compose/workspace.yaml", "local/dagster.yaml", "sagemaker/serve.py"),
    }
    served = [sys.executable, "deploy/sagemaker/serve.py", "--help"]
    subprocess.run(served, env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True)


def test_what_the_build_is_given_is_enough_to_load_the_definitions(tmp_path: Path) -> None:
    image(tmp_path)
    code = (
        "import asr_assets.definitions, sys, pathlib\n"
        "from asr_assets.running import INSTANCE_CONFIG\n"
        "INSTANCE_CONFIG.read_text()\n"
        "for name, module in sys.modules.items():\n"
        "    if name in ('asr_assets', 'sensors', 'resources', 'speech'):\n"
        "        print(pathlib.Path(module.__file__).parents[1])"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ASR_", "DAGSTER_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(tmp_path)] * 4
