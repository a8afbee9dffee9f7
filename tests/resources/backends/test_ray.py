"""A real Ray cluster of several nodes on this machine: the same words, whatever is killed meanwhile."""

import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from resources.backends import Job
from resources.backends.ray import _cluster, _demands
from resources.models import SpeechModels
from resources.store import Store
from speech import pipeline, workers
from speech.engines import Hardware
from speech.errors import ModelError
from speech.models import ModelVersion
from speech.pipeline import Heard, Transcriber
from speech.reading import Recording
from speech.types import HeardWindow
from tests.asr_assets.daemon import wait_for
from tests.asr_assets.test_recovery import kill_when
from tests.conftest import FAST_MODEL, SAMPLES, Platform
from tests.speech.test_pipeline import Kept, samples_of

if not find_spec("ray"):
    pytest.skip("needs the extra ray", allow_module_level=True)
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ray")]

NAMES = ("delayed_audio.mp4", "school.mp4", "station.webm", "library.mp4")


@pytest.fixture(scope="module")
def token() -> Iterator[None]:
    """One that all clusters of this process ask for; Ray looks for it once, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        yield


@pytest.fixture
def cluster(token: None) -> Iterator[Any]:
    """A head without a core for actors, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield made
    made.shutdown()


@pytest.fixture
def models(tmp_path: Path) -> SpeechModels:
    path = tmp_path / "models.toml"
    path.write_text(f"{FAST_MODEL}max_window_s = 4.0\n")
    return SpeechModels(path=str(path), backend="ray")


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    return [Recording(name, samples_of(SAMPLES / name, tmp_path)) for name in NAMES]


class Meddling(Kept):
    """A memory that does something once, when the first windows were heard."""

    def __init__(self, then: Callable[[], object]) -> None:
        super().__init__()
        self._then: Callable[[], object] | None = then

    def keep(self, recording: Recording, heard: Sequence[HeardWindow]) -> None:
        super().keep(recording, heard)
        then, self._then = self._then, None
        if then:
            then()


def on_ray(models: SpeechModels, recordings: list[Recording], memory: Kept) -> list[Heard]:
    model = models.get("pocketsphinx_fast")
    with models.load(model, Store(url="file:///nowhere"), "00000001") as transcriber:
        return list(transcriber.run(recordings, memory))


def here(models: SpeechModels, recordings: list[Recording]) -> dict[str, object]:
    with Transcriber(models.get("pocketsphinx_fast")) as transcriber:
        return {heard.id: heard.outcome for heard in transcriber.run(recordings)}


def actors() -> list[int]:
    """The processes that hear."""
    shown = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in shown.splitlines() if "ray::_There" in line]


def test_a_node_and_an_actor_die_at_work_and_nothing_is_lost_or_doubled(
    cluster: Any,
    models: SpeechModels,
    recordings: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(workers, "STALL_BASE_S", 5.0)
    monkeypatch.setattr(workers, "STALL_TIMES", 1.0)
    elsewhere = models.model_copy(update={"ray_address": cluster.address})
    model = models.get("pocketsphinx_fast")
    assert "3 nodes, 2 cores, 0 GPUs" in elsewhere.describe(model, Store(url="file:///nowhere"))
    undisturbed = here(models, recordings)
    (_, *nodes) = cluster.list_all_nodes()
    for meddle in (
        lambda: None,
        lambda: os.kill(actors()[0], signal.SIGKILL),
        lambda: os.kill(actors()[0], signal.SIGSTOP),  # it gives no answer any more, and is replaced
        lambda: cluster.remove_node(nodes[0], allow_graceful=False),  # and no room for another worker
    ):
        memory = Meddling(meddle)
        heard = on_ray(elsewhere, recordings, memory)
        assert {one.id: one.outcome for one in heard} == undisturbed
        assert len(heard) == len(recordings)
        kept = Counter((name, window.start_s) for name, some in memory.windows.items() for window in some)
        assert set(kept.values()) == {1}
    # The next run hears nothing of what was heard.
    (again,) = on_ray(elsewhere, recordings[:1], memory)
    assert (again.outcome, again.seconds) == (undisturbed[again.id], 0.0)
    wait_for(lambda: not actors(), 30)


def test_a_model_that_wants_gpus_says_so_where_none_is_up(cluster: Any) -> None:
    whisper = ModelVersion("m", "whisper", weights="./none")
    job = Job(whisper, Store(url="file:///nowhere"), "00000001", Hardware(), 0, cluster.address)
    cuda, cpu = Hardware(device="cuda"), Hardware(device="cpu")
    with _cluster(job):
        for unsaid in ({}, {"workers": 2}, {"hardware": cuda}):
            with pytest.raises(ModelError, match="set ASR_DEVICE to cuda and ASR_WORKERS"):
                _demands(replace(job, **unsaid))
        for said, devices in (
            ({"hardware": cuda, "workers": 3}, ["cuda"] * 3),
            ({"hardware": cpu}, ["cpu"] * 2),
            ({"model": replace(whisper, engine="pocketsphinx")}, ["cpu"] * 2),
        ):
            assert [one.hardware.device for one in _demands(replace(job, **said))] == devices


def answers(port: int) -> bool:
    with closing(socket.socket()) as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a log that Ray leaves open
def test_a_client_of_a_cluster_hears_the_same(
    token: None, models: SpeechModels, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    # Where threads of gRPC's are at work when Ray's server of clients forks, its child does not come up.
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20, "ray_client_server_port": port},
    )
    try:
        wait_for(lambda: answers(port), 60)
        far = models.model_copy(update={"ray_address": f"ray://127.0.0.1:{port}"})
        assert "1 cores" in far.describe(far.get("pocketsphinx_fast"), Store(url="file:///nowhere"))
        heard = on_ray(far, recordings, Kept())
        assert {one.id: one.outcome for one in heard} == here(models, recordings)
    finally:
        made.shutdown()


@pytest.mark.skipif(not Path("/proc").exists(), reason="nobody says what another process's environment is")
def test_actors_on_this_machine_know_no_secret(
    token: None, models: SpeechModels, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_A_NAME_THAT_NOBODY_KNOWS", "canary")
    with models.load(models.get("pocketsphinx_fast"), Store(url="file:///nowhere"), "00000001") as ray:
        list(ray.run(recordings[:1]))
        known = [Path(f"/proc/{pid}/environ").read_bytes() for pid in actors()]
    assert known
    assert not any(b"canary" in environment for environment in known)


def test_killed_and_started_again_it_goes_on_with_the_video_it_was_at(platform: Platform) -> None:
    platform.add(*NAMES, "corrupt.mp4", "silent.mp4")
    platform.env["ASR_BACKEND"] = "ray"
    platform.env["ASR_RAY_ADDRESS"] = "127.0.0.1:1"
    said = platform.asr("run").stderr
    assert "the Ray cluster at 127.0.0.1:1 cannot be reached" in said
    del platform.env["ASR_RAY_ADDRESS"]
    assert kill_when(platform, "unfinished/*/*/*/videos/*.json")
    done = list((platform.root / "data").glob("unfinished/*/*/*/videos/*.json"))
    assert done
    platform.must("run")
    by_run = map(int, platform.sql("SELECT count(*) FROM attempts GROUP BY run_id"))
    assert sorted(by_run) == sorted([len(done), len(NAMES) + 1 - len(done)])
    with_ray = platform.tables()
    (platform.root / "data").rename(platform.root / "with_ray")
    platform.env["ASR_BACKEND"] = "here"
    platform.must("run")
    assert platform.tables() == with_ray
    wait_for(lambda: not actors(), 30)
