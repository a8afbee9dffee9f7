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
from resources.models import SpeechModels
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from speech.engines import ENGINES
from speech.errors import AsrError
from speech.models import ModelVersion
from speech.weights import hub_reachable, is_folder, local_weights

PACKAGES = ("dagster", "duckdb", "av", "pocketsphinx", "torch", "transformers")


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
    yield Finding("ffmpeg", _ffmpeg())
    yield _device()
    yield _told("source", settings.source_url, lambda: _source(settings))
    yield _told("store", settings.store_url, lambda: _store(Store(url=settings.store_url)))
    yield _told("words", settings.store_url, lambda: _words(Store(url=settings.store_url)))
    yield _warehouse(settings.warehouse)
    yield from _models(settings)


def _package(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", "make install brings it")


def _ffmpeg() -> str:
    import av

    return f"{av.ffmpeg_version_info}, inside the package av"


def _device() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("device", "none for engine whisper", "make install brings torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        return Finding("device", f"cuda: {', '.join(names)}")
    if torch.backends.mps.is_available():
        return Finding("device", "mps")
    return Finding("device", f"cpu, {torch.get_num_threads()} threads")


def _told(what: str, url: str, look: Callable[[], str]) -> Finding:
    """An error of the platform is a sentence, and says what to do."""
    try:
        return Finding(what, look())
    except AsrError as error:
        return Finding(what, url, str(error))


def _source(settings: Settings) -> str:
    from dagster_aws.s3 import S3Resource

    source = Source(url=settings.source_url, s3=S3Resource())
    first = list(islice(source.list(), 1000))
    return f"{settings.source_url}: {len(first)}{' or more' if len(first) == 1000 else ''} videos"


def _store(store: Store) -> str:
    key = f"{layout.PROBES}/{uuid.uuid4().hex}"
    store.put(key, b"asr doctor was here")
    readable = store.get(key) == b"asr doctor was here"
    store.delete(key)
    if not readable:
        raise AsrError(
            f"{store.url}: what is written cannot be read back; set ASR_STORE_URL to another place"
        )
    return f"{store.url}: read and written"


def _words(store: Store) -> str:
    published = snapshot.latest(store)
    return (
        "none yet: asr run makes them" if published is None else f"snapshot {published.number} is published"
    )


def _warehouse(path: Path) -> Finding:
    where = next(folder for folder in (path.parent, *path.parent.parents) if folder.exists())
    if path.exists():
        return Finding("warehouse", f"{path}, {path.stat().st_size / 1e6:.0f} MB")
    return Finding("warehouse", f"{path}: made by the first load, on {where}")


def _weights(model: ModelVersion) -> str:
    return str(local_weights(model))


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        versions = SpeechModels.of(settings)
        enabled = versions.enabled
    except AsrError as error:
        yield Finding("models", str(settings.models), str(error))
        return
    remote = [m for m in versions.all.values() if m.weights and not is_folder(m.weights)]
    if remote:
        problem = hub_reachable()
        wanted = [m.name for m in enabled if m in remote]
        remedy = f"{', '.join(wanted)} may need it: set HF_ENDPOINT to a mirror, or weights to a folder"
        yield Finding(
            "hub", f"out of reach: {problem}" if problem else "in reach", remedy if problem and wanted else ""
        )
    for model in enabled:
        if ENGINES[model.engine].weights and is_folder(model.weights):
            yield _told(f"model {model.name}", model.weights, partial(_weights, model))
        else:
            yield Finding(f"model {model.name}", model.weights or f"inside the package {model.engine}")
