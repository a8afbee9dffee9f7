"""docs/scale.md shows what its script prints, and the script's queue behaves as queues do."""

import re
import shlex

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from docs.scale import Demand, main, runs_for, servers_needed, waits
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text()


def test_the_page_shows_what_its_command_prints() -> None:
    (command,) = [line for line in PAGE.splitlines() if "docs.scale --gpu" in line]
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, shlex.split(command)[3:])
    assert done.exit_code == 0, done.output
    assert done.output in PAGE


def test_pools_are_set_elsewhere_as_the_page_computes_them() -> None:
    (gpus,) = re.findall(r"^\| GPUs, 99 of 100 .*?\| (\d+) ", PAGE, re.MULTILINE)
    (runs,) = re.findall(r"^\| runs at a time.*?\| (\d+) ", PAGE, re.MULTILINE)
    for name in ("docs/kubernetes.md", "deploy/kubernetes/values.yaml"):
        text = (ROOT / name).read_text()
        assert re.search(rf"\b[Ff]or {gpus} GPUs\b", text)
        assert re.search(rf"concurrency set transcripts_whisper_large_v3 {runs}\n", text)


def test_a_queue_with_one_server_waits_as_long_as_theory_says() -> None:
    """M/D/1 at half load: a batch waits half of its service on average (Pollaczek and Khinchine)."""
    service_s = 43.2
    demand = Demand(hours=1000, within_s=3600, batch_videos=6, video_minutes=10)
    assert demand.batches * service_s / 86400 == pytest.approx(0.5)
    assert np.mean(waits(demand, service_s, 1)) == pytest.approx(1.5 * service_s, rel=0.02)


def test_a_run_that_extracts_as_long_as_it_hears_is_half_a_gpus() -> None:
    assert runs_for(3, 192, 192) == 6
    assert runs_for(3, 0, 192) == 3
    assert runs_for(3, 1, 192) == 4
    assert runs_for(1, 349, 192) == 3


def test_rush_hours_take_more_servers_and_a_longer_bound_fewer() -> None:
    evenly = Demand(hours=10_000, within_s=3600)
    rush = Demand(hours=10_000, within_s=3600, busy_hours=8)
    needed = [
        servers_needed(demand, 192, budget)[0]
        for demand, budget in ((evenly, 900), (rush, 900), (rush, 9000))
    ]
    assert needed[0] < needed[1]
    assert needed[2] < needed[1]
    with pytest.raises(ValueError, match="make batches smaller"):
        servers_needed(evenly, 1000, 900)
