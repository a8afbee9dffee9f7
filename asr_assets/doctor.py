"""``asr doctor``: what is there, what is not, and what to do about it."""

import platform
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from resources import layout, snapshot
from resources.backends import HERE
from resources.event_queue import EventQueue
from resources.models import SpeechModels
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from resources.warehouse import Warehouse
from speech.engines import ENGINES
from speech.errors import AsrError, first_line
from speech.models import ModelVersion
from speech.weights import check_package, digest_of, hub_reachable, where_weights_are

FFMPEG = {"libavformat": (62, 12, 102), "libavcodec": (62, 28, 102), "libswresample": (6, 3, 102)}
"""Those of FFmpeg 8.1.2, which the pinned package av has inside: the oldest that recordings of strangers are
given to. When av moves, look into FFmpeg's list of security fixes, and raise them."""

PACKAGES = ("dagster", "duckdb", "pyarrow", "obstore", "av", "pocketsphinx", "torch", "transformers")


class Finding(NamedTuple):
    """One line: what was looked at, what was found, and the remedy where something is wrong."""

    what: str
    found: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, one after another: each may take seconds. One with a remedy is a problem."""
    yield Finding("python", platform.python_version())
    for package in PACKAGES:
        yield _package(package)
    yield _told("ffmpeg", "", _ffmpeg)
    yield _told("device", "", _device)
    yield _told("source", settings.source_url, partial(_source, settings))
    if settings.queue_url:
        yield _told("queue", settings.queue_url, EventQueue(url=settings.queue_url).describe)
    yield _told("store", settings.store_url, partial(_store, settings))
    yield _told("words", settings.store_url, partial(_words, settings))
    yield _told("warehouse", str(settings.warehouse), partial(_warehouse, settings.warehouse))
    yield _told("hub", "", _hub)
    if settings.backend != HERE:
        yield _told("backend", settings.backend, partial(_backend, settings))
    yield from _models(settings)


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", "make install brings it")


def _told(what: str, at: str, look: Callable[[], str]) -> Finding:
    """An error of the platform is a sentence, and says what to do."""
    try:
        return Finding(what, look())
    except AsrError as error:
        return Finding(what, at, str(error))
    except (ImportError, OSError) as error:  # a package is missing, or was built for another machine
        return Finding(what, f"{at} {first_line(error)}".strip(), "make install brings what is needed")


def _ffmpeg() -> str:
    import av

    older = [name for name, least in FFMPEG.items() if av.library_versions[name] < least]
    if older:
        raise AsrError(
            f"{av.ffmpeg_version_info} has an older {older[0]} than FFmpeg 8.1.2, with holes that are known: "
            "make install brings the pinned av"
        )
    return f"{av.ffmpeg_version_info}, inside the package av"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return f"cuda: {', '.join(names)}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"


def _hub() -> str:
    problem = hub_reachable()
    return f"out of reach: {problem}" if problem else "in reach"


def _source(settings: Settings) -> str:
    source = Source.of(settings)
    first = list(islice(source.look(), 1000))
    if first:
        with source.open(first[0]) as video:  # who may list may not be allowed to read
            video.read_at(0, 1)
    return f"{settings.source_url}: {len(first)}{' or more' if len(first) == 1000 else ''} videos"


def _store(settings: Settings) -> str:
    store = Store(url=settings.store_url)
    key = f"{layout.PROBES}/{uuid.uuid4().hex}"
    store.put(key, b"asr doctor was here")
    readable = store.get(key) == b"asr doctor was here"
    store.delete(key)
    if not readable:
        raise AsrError(
            f"{store.url}: what is written cannot be read back; set ASR_STORE_URL to another place"
        )
    return f"{store.url}: read and written"


def _words(settings: Settings) -> str:
    published = snapshot.latest(Store(url=settings.store_url))
    return (
        "none yet: asr run makes them" if published is None else f"snapshot {published.number} is published"
    )


def _warehouse(path: Path) -> str:
    warehouse = Warehouse(path=str(path), wait_s=5)
    with warehouse.exclusive():
        if not path.exists():
            return f"{path}: made by the first load"
        with warehouse.connect():
            return f"{path}, {path.stat().st_size / 1e6:.0f} MB"


def _backend(settings: Settings) -> str:
    models = SpeechModels.of(settings)
    return models.describe(models.get(models.first_champion), Store(url=settings.store_url))


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        versions = SpeechModels.of(settings)
        enabled, _ = versions.enabled, versions.policy
    except AsrError as error:
        yield Finding("models", str(settings.models), str(error))
        return
    for model in enabled:
        yield _told(f"model {model.name}", model.weights, partial(_weights, model))


def _weights(model: ModelVersion) -> str:
    entry = ENGINES[model.engine]
    if not entry.weights:
        check_package(model, entry.package)
        return f"inside the package {entry.package}"
    where = where_weights_are(model)
    return f'{where}, digest = "{digest_of(model, Path(where))}"' if Path(where).is_dir() else where
