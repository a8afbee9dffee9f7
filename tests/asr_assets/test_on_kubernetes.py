"""Pods on Kubernetes: what each is given, as dagster-k8s makes it of the platform's own files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster import Definitions
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context.system import PlanData, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import create_context_free_log_manager
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import StepDelegatingExecutor, StepHandlerContext
from dagster._core.instance import DagsterInstance
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster._grpc.types import ExecuteStepArgs

from asr_assets.definitions import build
from asr_assets.on_kubernetes import LOADER_ACCOUNT, TRANSCRIPTS_ACCOUNT, WAREHOUSE_CLAIM
from resources.settings import Settings
from speech.errors import AsrError
from tests.asr_assets import chart
from tests.asr_assets.cluster import Cluster, cluster

MODELS = """
[on_a_gpu]
engine = "whisper"
weights = "./nowhere"
champion = true
[on_a_gpu.kubernetes]
gpus = 2
cpus = 6
memory = "24Gi"
node_selector = { "cloud.google.com/gke-accelerator" = "nvidia-l4" }
tolerations = [{ key = "nvidia.com/gpu" }, { key = "team", operator = "Equal", value = "speech" }]

[on_a_cpu]
engine = "pocketsphinx"
"""


@dataclass
class Deployed:
    """The definitions as they are deployed, an instance as the chart configures it, and a cluster."""

    defs: Definitions
    instance: DagsterInstance
    cluster: Cluster

    def run(self, job: str) -> DagsterRun:
        origin = RepositoryPythonOrigin(
            executable_path="python",
            code_pointer=ModuleCodePointer("asr_assets.definitions", "defs"),
            container_image="registry.example.com/asr-platform:0.1.0",  # as the code's server says it
            entry_point=["dagster"],
        )
        return self.instance.create_run_for_job(
            self.defs.resolve_job_def(job), job_code_origin=JobPythonOrigin(job, origin)
        )

    def launch(self, job: str) -> dict[str, Any]:
        """What K8sRunLauncher asks for."""
        run = self.run(job)
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return self.cluster.jobs[f"dagster-run-{run.run_id}"]

    def steps(self, job: str) -> dict[str, dict[str, Any]]:
        """What K8sStepHandler asks for, by the steps' names."""
        run, definition = self.run(job), self.defs.resolve_job_def(job)
        assert run.job_code_origin
        in_memory, executor = InMemoryJob(definition), definition.executor_def
        config = executor.apply_config_mapping({"config": {}}).value
        assert executor.executor_creation_fn
        assert config
        made = executor.executor_creation_fn(
            InitExecutorContext(in_memory, executor, config["config"], self.instance)
        )
        assert isinstance(made, StepDelegatingExecutor)
        plan = create_execution_plan(definition)
        orchestration = PlanOrchestrationContext(
            PlanData(in_memory, run, self.instance, plan),
            create_context_free_log_manager(self.instance, run),
            made,
            output_capture=None,
        )
        before = set(self.cluster.jobs)
        for step in plan.get_all_steps_in_topo_order():
            assert isinstance(step, ExecutionStep)
            arguments = ExecuteStepArgs(
                job_origin=run.job_code_origin,
                run_id=run.run_id,
                step_keys_to_execute=[step.key],
                instance_ref=self.instance.get_ref(),
                retry_mode=RetryMode.DEFERRED,
                known_state=KnownExecutionState(),
                should_verify_step=True,
            )
            context = StepHandlerContext(self.instance, orchestration, [step], arguments, run)
            list(made._step_handler.launch_step(context))
        new = [job for name, job in self.cluster.jobs.items() if name not in before]
        return {job["metadata"]["labels"]["dagster/op"]: job for job in new}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("deployed")
    models = root / "models.toml"
    models.write_text(MODELS)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in chart.PLATFORM["ConfigMap", "asr-settings"]["data"].items():
            environment.setenv(name, value)
        environment.setenv("ASR_MODELS", str(models))
        environment.setenv("ASR_POSTGRES_URL", "postgresql://words@words.example.com/words")
        with (
            cluster(root / "cluster", {}) as ours,
            chart.instance(root / "home", ours.kubeconfig) as instance,
        ):
            yield Deployed(build(Settings.from_env()), instance, ours)


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(job)["containers"]
    assert isinstance(only, dict)
    return only


def claims(job: dict[str, Any]) -> list[str]:
    volumes = pod(job)["volumes"]
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]


GPU = "nvidia.com/gpu"
LOADS = {"load_words": "word_timings", "compare_models": "model_comparison"}
JOBS = ("process_batch", *LOADS, "copy_words")


def test_only_transcripts_ask_for_gpus_and_each_as_its_model_says(deployed: Deployed) -> None:
    steps = deployed.steps("process_batch")
    sized = container(steps["transcripts__on_a_gpu"])["resources"]
    assert sized == {
        "requests": {"cpu": "6", "memory": "24Gi", GPU: "2"},
        "limits": {"memory": "24Gi", GPU: "2"},
    }
    on_a_gpu = pod(steps["transcripts__on_a_gpu"])
    assert on_a_gpu["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert on_a_gpu["tolerations"] == [
        {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "speech", "effect": "NoSchedule"},
    ]
    on_a_cpu = container(steps["transcripts__on_a_cpu"])["resources"]
    assert on_a_cpu == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    others = [steps["raw_videos"], steps["extracted_audio"], deployed.launch("process_batch")]
    others += [step for job in JOBS[1:] for step in deployed.steps(job).values()]
    for job in others:
        assert GPU not in str(job)
        assert not pod(job).get("tolerations")
        assert container(job)["resources"] == chart.LAUNCHER["resources"]


def test_only_loaders_have_the_warehouse_and_each_role_its_account(deployed: Deployed) -> None:
    batch = deployed.steps("process_batch")
    loads = {job: deployed.steps(job) for job in LOADS}
    for job, step in LOADS.items():
        loader = loads[job][step]
        assert claims(loader) == [WAREHOUSE_CLAIM]
        assert {"name": "warehouse", "mountPath": "/warehouse"} in container(loader)["volumeMounts"]
        assert pod(loader)["serviceAccountName"] == LOADER_ACCOUNT
    copier = deployed.steps("copy_words")["postgres_words"]
    assert pod(copier)["serviceAccountName"] == LOADER_ACCOUNT  # which may read what is published
    accounts = {name: pod(step)["serviceAccountName"] for name, step in batch.items()}
    assert accounts == {
        "raw_videos": "dagster",
        "extracted_audio": "dagster",
        "transcripts__on_a_gpu": TRANSCRIPTS_ACCOUNT,
        "transcripts__on_a_cpu": TRANSCRIPTS_ACCOUNT,
    }
    runs = [deployed.launch(job) for job in JOBS]
    assert not any(claims(job) for job in (*batch.values(), copier, *runs))


def test_every_pod_is_confined_and_has_its_secrets_by_name_only(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "ASR_POSTGRES_URL", "PGPASSWORD"):
        monkeypatch.setenv(secret, "canary")  # the daemon has them, too
    named = {name: step for job in JOBS for name, step in deployed.steps(job).items()}
    steps, runs = list(named.values()), [deployed.launch(job) for job in JOBS]
    for job in (*steps, *runs):
        assert "canary" not in str(job)
        only = container(job)
        assert only["envFrom"] == [
            {"configMapRef": {"name": "asr-settings"}},
            {"secretRef": {"name": "asr-secrets"}},
        ]
        secrets = {
            one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in only["env"] if "valueFrom" in one
        }
        assert secrets.pop("DAGSTER_PG_PASSWORD") == "asr-postgresql"
        assert secrets == ({"PGPASSWORD": "asr-words-postgresql"} if job is named["postgres_words"] else {})
        assert {one["name"] for one in only["env"]} - secrets.keys() <= {
            *("DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS", "DAGSTER_RUN_JOB_NAME", "DAGSTER_RUN_STEP_KEY"),
            *("DAGSTER_HOME", "DAGSTER_PG_PASSWORD"),
        }
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(job)["securityContext"]["runAsNonRoot"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in only["volumeMounts"]
        assert {"name": "tmp", "emptyDir": {}} in pod(job)["volumes"]
    assert [pod(job)["automountServiceAccountToken"] for job in runs] == [True] * len(runs)
    assert [pod(job)["automountServiceAccountToken"] for job in steps] == [False] * len(steps)


def test_the_network_policy_selects_the_pods_of_all_runs_and_steps(deployed: Deployed) -> None:
    policy = chart.PLATFORM["NetworkPolicy", "asr-runs"]["spec"]
    (selected,) = policy["podSelector"]["matchExpressions"]
    jobs = [*deployed.steps("process_batch").values(), *deployed.steps("load_words").values()]
    for job in (*jobs, deployed.launch("process_batch"), deployed.launch("load_words")):
        assert job["spec"]["template"]["metadata"]["labels"][selected["key"]] in selected["values"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    anywhere = {
        one["port"] for rule in policy["egress"] for one in rule["ports"] if "ipBlock" in rule["to"][0]
    }
    assert anywhere == {443, 5432, 6443}
    named = {one["port"] for rule in policy["egress"] for one in rule["ports"]} - anywhere
    assert named == {53, 10001}


def test_a_step_that_takes_hours_is_started_again_a_bounded_number_of_times(deployed: Deployed) -> None:
    job = deployed.defs.resolve_job_def("process_batch")
    tries = {node.name: node.definition.retry_policy for node in job.nodes}  # type: ignore[attr-defined]
    assert {name: policy.max_retries for name, policy in tries.items() if policy} == {
        "transcripts__on_a_gpu": 2,
        "transcripts__on_a_cpu": 2,
    }
    assert chart.VALUES["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"] == 3
    assert chart.VALUES["dagsterDaemon"]["runRetries"]["enabled"] is False


@pytest.mark.parametrize("name", ["ASR_SOURCE_URL", "ASR_STORE_URL"])
def test_a_folder_that_pods_do_not_share_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    urls = {"ASR_SOURCE_URL": "s3://videos-bucket", "ASR_STORE_URL": "s3://words-bucket/platform"}
    for variable, value in (urls | {name: str(tmp_path), "ASR_EXECUTOR": "kubernetes"}).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(AsrError, match=f"is a folder, which pods do not share; set {name} to a bucket"):
        build(Settings.from_env())
