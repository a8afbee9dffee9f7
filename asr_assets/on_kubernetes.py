"""Steps in pods of their own: what each asks of Kubernetes.

Everything that all pods have in common (image, environment, secrets, security contexts) is said once, where
the platform is deployed: ``deploy/kubernetes/values.yaml`` or ``dagster_cloud.yaml``.
"""

from typing import Any

from dagster import ExecutorDefinition, RetryPolicy

from resources.pods import Pod
from resources.settings import Settings, local_path
from speech.errors import AsrError

CONFIG = "dagster-k8s/config"
"""The tag of an asset's step; the same tag on a job would reach the pod of the run, and no step's."""

GPU = "nvidia.com/gpu"

WAREHOUSE_CLAIM = "asr-warehouse"
"""The volume with the DuckDB file; no two pods may have it at the same time."""

TRANSCRIPTS_ACCOUNT = "asr-transcripts"
LOADER_ACCOUNT = "asr-loader"

WORDS_PASSWORD = {"name": "asr-words-postgresql", "key": "postgresql-password", "optional": True}
"""The password of the database that gets the words, which only its step has; none is needed everywhere."""

STARTED_AGAIN = RetryPolicy(max_retries=2, delay=10)
"""For the step that takes hours: a node may be taken away under it, and it goes on with the video it was at.
A short step fails with its run, and new_batches asks for another."""


def pod_executor(settings: Settings) -> ExecutorDefinition:
    """Starts each step in a pod of its own.

    Raises :class:`~speech.errors.AsrError` where pods could not get at the data, or dagster-k8s is missing.
    """
    for name, url in (("ASR_SOURCE_URL", settings.source_url), ("ASR_STORE_URL", settings.store_url)):
        if local_path(url):
            raise AsrError(
                f"ASR_EXECUTOR is kubernetes, and {url} is a folder, which pods do not share; "
                f"set {name} to a bucket"
            )
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise AsrError(
            "ASR_EXECUTOR is kubernetes, and dagster-k8s is not installed: "
            "pip install 'asr-platform[kubernetes]' brings it"
        ) from error
    # A run starts pods; a step has no business with Kubernetes, least of all one that decodes a stranger's
    # recording.
    untrusted = {"pod_spec_config": {"automount_service_account_token": False}}
    configured: ExecutorDefinition = k8s_job_executor.configured({"step_k8s_config": untrusted})
    return configured


def transcripts_pod(pod: Pod) -> dict[str, Any]:
    """Tags of a model version's step."""
    gpus = {GPU: str(pod.gpus)} if pod.gpus else {}
    requests = {"cpu": str(pod.cpus), "memory": pod.memory, **gpus}
    return {
        CONFIG: {
            "container_config": {
                "resources": {"requests": requests, "limits": {"memory": pod.memory, **gpus}}
            },
            "pod_spec_config": {
                "service_account_name": TRANSCRIPTS_ACCOUNT,
                "node_selector": dict(pod.node_selector),
                "tolerations": [taint.model_dump(exclude_none=True) for taint in pod.tolerations],
            },
        }
    }


def loader_pod(settings: Settings) -> dict[str, Any]:
    """Tags of a step that opens the warehouse."""
    return {
        CONFIG: {
            "container_config": {
                "volume_mounts": [{"name": "warehouse", "mount_path": str(settings.warehouse.parent)}]
            },
            "pod_spec_config": {
                "service_account_name": LOADER_ACCOUNT,
                "volumes": [
                    {"name": "warehouse", "persistent_volume_claim": {"claim_name": WAREHOUSE_CLAIM}}
                ],
            },
        }
    }


def copier_pod() -> dict[str, Any]:
    """Tags of the step that copies words to PostgreSQL: it may read what a loader does, and has no volume."""
    password = {"name": "PGPASSWORD", "value_from": {"secret_key_ref": WORDS_PASSWORD}}
    return {
        CONFIG: {
            "container_config": {"env": [password]},
            "pod_spec_config": {"service_account_name": LOADER_ACCOUNT},
        }
    }
