"""Transcription on a Ray cluster: windows go to actors, on whichever node has room for one.

The actors are workers like others (:mod:`speech.workers`): they take from one queue, so a slow node gets
less; one that dies or stalls is replaced, on another node if its own is gone; where there is no room for
another, the rest goes on without it. Words are put together and kept here, so that whatever happens to the
cluster, what was heard is not heard again.

Without an address a cluster is started on this machine, for whoever has a token that only it and this process
know, and ended with the batch. Its actors get none of this process's environment but what
:mod:`speech.environment` lets through, and that token (Ray's own processes, which load no model, inherit all
of it); those of any other cluster have what its nodes have, and nothing is sent.
"""

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from resources.backends import Job
from speech.engines import ENGINES, Asked, Hardware
from speech.environment import environment_of
from speech.errors import AsrError, ModelError, WorkerBroken, first_line
from speech.listening import Usage
from speech.models import ModelVersion
from speech.pipeline import Transcriber
from speech.types import HeardWindow, Seconds, Window
from speech.worker import Remote
from speech.workers import LOADING_S, Crew, Pace, cores

GROWING_S: Seconds = 1200.0
"""So long the first actor may wait for a node: the cluster may have to start one."""
PLACING_S: Seconds = 30.0
"""So long each other actor may wait for room, and one that takes a dead one's place."""
ANSWER_S: Seconds = 10.0
OBJECTS_BYTES = 256 << 20  # windows on their way to actors: 30 s of sound are one megabyte


@contextmanager
def load(job: Job) -> Iterator[Transcriber]:
    """A :class:`~speech.pipeline.Transcriber` whose crew are actors, until the context ends."""
    with _cluster(job), Transcriber(job.model, job.hardware, crew=Crew(_hire(job))) as transcriber:
        yield transcriber


def describe(job: Job) -> str:
    """What the cluster has."""
    with _cluster(job):
        nodes, cpus, gpus = _resources()
        return f"Ray at {job.at or 'this machine'}: {len(nodes)} nodes, {cpus} cores, {gpus} GPUs"


@contextmanager
def _cluster(job: Job) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    if not job.at:  # its ports are open to the network: whoever has no token is refused
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModelError(
            f"ASR_BACKEND is ray, but {error.name} is not installed: pip install ray==2.60.0"
        ) from error

    if ray.is_initialized():  # whoever did it ends it
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        options: dict[str, Any] = {"address": job.at}
        if not job.at:
            kept = environment_of(job.model)
            hidden = {name: "" for name in os.environ if name not in kept and not name.startswith("RAY_")}
            options = {
                "address": "local",
                "num_cpus": max(job.workers, cores()),
                "include_dashboard": False,
                "object_store_memory": OBJECTS_BYTES,
                "runtime_env": {"env_vars": hidden},
                "_temp_dir": folder,
            }
        try:
            _knock(job.at)
            with _as_before(signal.SIGTERM):
                ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = f"cluster at {job.at} cannot be reached" if job.at else "cluster does not start"
            raise ModelError(f"the Ray {where}: {first_line(error)}; check ASR_RAY_ADDRESS") from error
        try:
            yield
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError where nobody answers; Ray would try for ten minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:  # and not "auto"
        socket.create_connection((place.hostname, place.port), timeout=ANSWER_S).close()


@contextmanager
def _as_before(number: signal.Signals) -> Iterator[None]:
    """Ray takes a signal for itself by which Dagster ends a run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler)


class _There(Remote):
    """What an actor is."""

    def load_the_same(self, model: ModelVersion, hardware: Hardware, fingerprint: str) -> ModelError | None:
        """What a node has of its own, packages and weights, must not change the words."""
        if model.fingerprint != fingerprint:
            return ModelError(
                f"model {model.name}: a node of the Ray cluster has other weights or packages than this "
                "machine, or none: give all of them the same image"
            )
        return self.load(model, hardware)


class Demand(NamedTuple):
    """What an actor asks of a node, and what its engine is told."""

    cpus: int
    gpus: int
    hardware: Hardware


class Actor:
    """See :class:`speech.workers.Worker`."""

    def __init__(self, model: ModelVersion, demand: Demand) -> None:
        self.device = demand.hardware.device
        self.usage: Usage | None = None
        self._model, self._demand = model, demand
        self._pace, self._loaded = Pace(), False
        self._closed, self._lock = False, Lock()
        self._actor: Any = None
        self.placed = self._start()
        """Ray's word that it has a node."""

    def _start(self) -> Any:
        import ray

        cpus, gpus, _ = self._demand
        options = {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        with self._lock:
            if self._closed:
                raise WorkerBroken("it was told to end")
            self._actor, self._loaded = ray.remote(_There).options(**options).remote(), False
        return self._actor.__ray_ready__.remote()

    def hear(self, windows: Sequence[Window], asked: Asked) -> list[HeardWindow]:
        """See :class:`speech.workers.Worker`."""
        if not self._actor:
            self._replace()
        if not self._loaded:
            self._ask("load_the_same", LOADING_S, self._model, self._demand.hardware, self._model.fingerprint)
            self._loaded = True
        with self._pace.over(windows) as patience_s:
            heard, self.usage = self._ask("hear", patience_s, windows, asked)
        return list(heard)

    def _replace(self) -> None:
        import ray

        placed, _ = ray.wait([self._start()], timeout=PLACING_S)
        if not placed:
            self.close()
            raise WorkerBroken("no node of the Ray cluster has room for another worker")

    def _ask(self, what: str, patience_s: Seconds, *about: Any) -> Any:
        """An actor's answer, or raise it. Whoever stalls is killed."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        try:
            answer = ray.get(getattr(self._actor, what).remote(*about), timeout=patience_s)
        except GetTimeoutError as error:
            self.close()
            raise WorkerBroken(
                f"a worker on the Ray cluster gave no sign of life for {patience_s:.0f} s"
            ) from error
        except RayError as error:
            self.close()
            raise WorkerBroken(f"a worker on the Ray cluster is gone: {first_line(error)}") from error
        if isinstance(answer, (ModelError, WorkerBroken)):
            self.close()
        if isinstance(answer, AsrError):
            raise answer
        return answer

    def close(self) -> None:
        """See :class:`speech.workers.Worker`; another batch would get another actor."""
        import ray

        with self._lock:
            if self._actor:
                ray.kill(self._actor)
            self._actor, self._loaded = None, False

    def stop(self) -> None:
        """See :class:`speech.workers.Worker`; whoever waits for its answer is told that it is gone."""
        import ray

        with self._lock:
            self._closed = True
            if self._actor:
                ray.kill(self._actor)


def _hire(job: Job) -> list[Actor]:
    """As many actors as there is room for, of those that are wanted."""
    import ray

    actors = [Actor(job.model, demand) for demand in _demands(job)]
    placed = [actor.placed for actor in actors]
    ray.wait(placed, timeout=GROWING_S)
    there, _ = ray.wait(placed, num_returns=len(placed), timeout=PLACING_S)
    for actor in actors:
        if actor.placed not in there:
            actor.close()
    if not there:
        raise ModelError(
            f"no node of the Ray cluster has had room for a worker for {GROWING_S:.0f} s: add nodes, or end "
            "what keeps them busy"
        )
    return [actor for actor in actors if actor.placed in there]


def _resources() -> tuple[list[dict[str, float]], int, int]:
    """What each node has, and all cores and GPUs."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    return nodes, cpus, gpus


def _demands(job: Job) -> list[Demand]:
    """An actor for each GPU and each core that is to be used, or ``job.workers`` of them that share these.

    Raises ModelError where nobody can say how many: of a cluster that starts nodes when they are wanted, Ray
    knows those that are up.
    """
    nodes, cpus, gpus = _resources()
    wanted = job.hardware.device
    may_want_gpus = "cuda" in wanted or (wanted == "auto" and ENGINES[job.model.engine].batches)
    if job.at and not gpus and may_want_gpus and not ("cuda" in wanted and job.workers):
        raise ModelError(
            f"no GPU of the Ray cluster at {job.at} is up: where it starts some when they are wanted, set "
            "ASR_DEVICE to cuda and ASR_WORKERS to how many; to use its cores alone, set ASR_DEVICE to cpu"
        )
    devices = ["cuda" if gpus else "cpu"] if wanted == "auto" else list(map(str.strip, wanted.split(",")))
    if odd := set(devices) - {"cpu", "cuda"}:
        raise ModelError(f"on a Ray cluster there is no device {', '.join(sorted(odd))}: cuda, cpu, or both")
    on_gpus = gpus if "cuda" in devices else 0
    all_of_them = ["cuda"] * on_gpus + ["cpu"] * (cpus - on_gpus if "cpu" in devices else 0)
    each = list(islice(cycle(devices), job.workers)) if job.workers else all_of_them or devices
    # Together they take the cores once; none is larger than the smallest node.
    smallest = int(min((node["CPU"] for node in nodes if node.get("CPU")), default=1))
    threads = job.hardware.threads or max(1, min(smallest, cpus // len(each)))
    return [
        Demand(threads, int(device == "cuda"), Hardware(device, threads, batch_size=job.hardware.batch_size))
        for device in each
    ]
