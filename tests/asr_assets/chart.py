"""What Dagster's chart makes of ``deploy/kubernetes/values.yaml``, as far as an instance has it.

Helm is not here: these lines stand for the chart's ``configmap-instance.yaml``. Where storage is not
said, it is SQLite's, and the chart's PostgreSQL's. The instance's own schema judges all of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dagster import DagsterInstance

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "values.yaml").read_text())
PLATFORM: dict[tuple[str, str], dict[str, Any]] = {
    (one["kind"], one["metadata"]["name"]): one
    for one in yaml.safe_load_all((DEPLOY / "platform.yaml").read_text())
}
COMMAND: dict[str, Any] = yaml.safe_load((DEPLOY / "command.yaml").read_text())
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
_RAW = {
    "podTemplateSpecMetadata": "pod_template_spec_metadata",
    "podSpecConfig": "pod_spec_config",
    "jobSpecConfig": "job_spec_config",
}


def instance(home: Path, kubeconfig: Path, **changed: Any) -> DagsterInstance:
    """The instance of a deployment, with its own folder in place of a ConfigMap."""
    monitoring = VALUES["dagsterDaemon"]["runMonitoring"]
    said = {
        "run_launcher": {
            "module": "dagster_k8s",
            "class": VALUES["runLauncher"]["type"],
            "config": {
                "load_incluster_config": False,
                "kubeconfig_file": str(kubeconfig),
                "dagster_home": str(home),
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
                "service_account_name": "dagster",
                "job_namespace": "asr",
                "image_pull_policy": LAUNCHER["imagePullPolicy"],
                "env_config_maps": [one["name"] for one in LAUNCHER["envConfigMaps"]],
                "env_secrets": [one["name"] for one in LAUNCHER["envSecrets"]],
                "security_context": LAUNCHER["securityContext"],
                "volumes": LAUNCHER["volumes"],
                "volume_mounts": LAUNCHER["volumeMounts"],
                "resources": LAUNCHER["resources"],
                "run_k8s_config": {_RAW[key]: raw for key, raw in LAUNCHER["runK8sConfig"].items()},
            },
        },
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
            "free_slots_after_run_end_seconds": monitoring["freeSlotsAfterRunEndSeconds"],
        },
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"},
        "compute_logs": _compute_logs(VALUES["computeLogManager"]),
        "retention": {"sensor": {"purge_after_days": VALUES["retention"]["sensor"]["purgeAfterDays"]}},
        "telemetry": VALUES["telemetry"],
        **VALUES["additionalInstanceConfig"],
        **changed,
    }
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(said))
    return DagsterInstance.from_config(str(home))


def _compute_logs(manager: Mapping[str, Any]) -> dict[str, Any]:
    s3 = manager["config"]["s3ComputeLogManager"]
    config = {"bucket": s3["bucket"], "prefix": s3["prefix"], "skip_empty_files": s3["skipEmptyFiles"]}
    return {"module": "dagster_aws.s3.compute_log_manager", "class": manager["type"], "config": config}
