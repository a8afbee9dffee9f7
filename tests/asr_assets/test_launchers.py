"""Who is taken for dead: runs of this machine that nobody works on, and no others."""

from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DagsterRunStatus, job

from asr_assets.launchers import Launcher, become

IN_PODS = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": {"instance_config_map": "dagster"}}
HERE = {"module": "dagster", "class": "DefaultRunLauncher"}


@job
def work() -> None:
    """Nothing."""


@pytest.mark.parametrize(
    ("launcher", "ends"),
    [(HERE, DagsterRunStatus.FAILURE), (IN_PODS, DagsterRunStatus.STARTED)],
    ids=["processes", "pods"],
)
def test_a_command_with_a_home_of_its_own_fails_no_run_of_a_cluster(
    launcher: dict[str, object], ends: DagsterRunStatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One database, two homes: nobody holds a lock in the second, whoever works with the first."""
    database = {"sqlite": {"base_dir": str(tmp_path / "database")}}
    homes = tmp_path / "daemons", tmp_path / "commands"
    for home in homes:
        home.mkdir()
        (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": database, "run_launcher": launcher}))
    theirs, ours = homes
    with DagsterInstance.from_config(str(theirs)) as instance:
        started = instance.create_run_for_job(work, status=DagsterRunStatus.STARTED)
    monkeypatch.setenv("DAGSTER_HOME", str(ours))
    with become(Launcher.COMMAND_LINE, ours) as instance:
        run = instance.get_run_by_id(started.run_id)
        assert run
        assert run.status == ends
