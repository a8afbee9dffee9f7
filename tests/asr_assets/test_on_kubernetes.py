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
RUN_CONTAINER = "/var/run/secrets"


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
        for step in plan.step_keys_to_execute:
            arguments = ExecuteStepArgs(
                job_origin=run.job_code_origin,
                run_id=run.run_id,
                step_keys_to_execute=[step],
                instance_ref=self.instance.get_ref(),
                retry_mode=RetryMode.DEFERRED,
                known_state=KnownExecutionState(),
                should_verify_step=True,
            )
            context = StepHandlerContext(
                self.instance, orchestration, [plan.get_step_by_key(step)], arguments, run
            )
            list(made._step_handler.launch_step(context))
        new = [job for name, job in self.cluster.jobs.items() if name not in before]
        return {step: job for step, job in zip(plan.step_keys_to_execute, new, strict=True)}


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    models = tmp_path / "models.toml"
    models.write_text(MODELS)
    for name, value in chart.PLATFORM["ConfigMap", "asr-settings"]["data"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ASR_MODELS", str(models))
    with cluster(tmp_path / "cluster", {}) as ours:
        with chart.instance(tmp_path / "home", ours.kubeconfig) as instance:
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


def test_x(deployed: Deployed) -> None:
    import json
    print(json.dumps(deployed.launch("process_batch"), indent=1)[:6000])
    s = deployed.steps("process_batch")
    print(json.dumps(s["transcripts__on_a_gpu"], indent=1)[:6000])
    print({k: (container(v)["resources"], pod(v).get("serviceAccountName")) for k, v in s.items()})
