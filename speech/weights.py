"""Where a model version's weights come from: a folder, or the Hugging Face hub at a pinned revision; and
whether they are the ones that are meant.
"""

import base64
import hashlib
import re
from functools import lru_cache
from importlib.metadata import files as files_of_package
from pathlib import Path
from typing import TYPE_CHECKING

from speech.engines import ENGINES
from speech.errors import ModelError, first_line

if TYPE_CHECKING:
    from speech.models import ModelVersion

_BESIDE = ("*.json", "*.txt")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_folder(weights: str) -> bool:
    """Whether ``weights`` means a local folder; all else is a repository on the hub.

    >>> is_folder("./micro_whisper/checkpoint"), is_folder("openai/whisper-tiny")
    (True, False)
    """
    return weights.startswith(("/", "./", "../", "~"))


def _files(model: "ModelVersion") -> tuple[str, ...]:
    return (*ENGINES[model.engine].weights, *_BESIDE)


def local_weights(model: "ModelVersion") -> Path:
    """The folder with the model's files; those of the hub are fetched once and then found in its cache, or in
    the ``download_root`` of the model's ``runtime``; with ``local_files_only`` there nothing is fetched.

    Raises :class:`~speech.errors.ModelError` when they are not there, are not the ones that the model's
    ``digest`` says, or the revision is not pinned.
    """
    return _checked(model, Path(model.weights) if is_folder(model.weights) else _fetched(model))


def _checked(model: "ModelVersion", folder: Path) -> Path:
    if not folder.is_dir():
        raise ModelError(
            f"model {model.name}: its weights should be in the folder {folder}, which is not there"
        )
    patterns = ENGINES[model.engine].weights
    if not any(path for pattern in patterns for path in folder.glob(pattern)):
        raise ModelError(f"model {model.name}: there are no weights as {patterns[0]} in {folder}")
    # A changed byte in a tensor loads like any other, and nobody would know why words are wrong.
    if damaged := None if model.digest else _damaged(folder, patterns):
        raise ModelError(
            f"model {model.name}: {damaged} is not what the Hugging Face hub sent: delete it, and it is "
            f"fetched again (its sha256 is {_sha256(*_state(damaged))}, and the hub said {damaged.name})"
        )
    if model.digest and (found := digest_of(model, folder)) != model.digest:
        raise ModelError(
            f"model {model.name}: the files of its weights in {folder} are not those that are meant: their "
            f"digest is {found}, and models.toml says {model.digest}. If they are damaged, copy them anew; "
            f'if they were changed on purpose, write digest = "{found}"'
        )
    return folder


def _damaged(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    """A file of the hub's cache, which calls files by their SHA-256, that is not what it is called."""
    blobs = {path.resolve() for pattern in patterns for path in folder.glob(pattern)}
    named = (blob for blob in sorted(blobs) if _SHA256.fullmatch(blob.name))
    return next((blob for blob in named if _sha256(*_state(blob)) != blob.name), None)


def check_package(model: "ModelVersion", package: str) -> None:
    """For an engine whose package carries the weights: whether its files are those that were installed.

    Raises :class:`~speech.errors.ModelError` for one that is not.
    """
    for file in files_of_package(package) or ():
        if file.hash and file.hash.mode == "sha256" and "model" in file.parts:
            path = Path(str(file.locate()))
            installed = base64.urlsafe_b64decode(file.hash.value + "=").hex()
            if not path.is_file() or _sha256(*_state(path)) != installed:
                raise ModelError(
                    f"model {model.name}: {path} is not the file that was installed: install the package "
                    f"{package} again (pip install --force-reinstall --no-deps {package})"
                )


def _fetched(model: "ModelVersion") -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # which client is theirs to choose
    from huggingface_hub.utils import logging

    wanted = f"{model.weights} at revision {model.revision}" if model.revision else model.weights
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # each failed try would be a line
    try:
        if not _COMMIT.fullmatch(model.revision):
            commit = HfApi().model_info(model.weights, revision=model.revision or None).sha
            raise ModelError(
                f"model {model.name}: pin {wanted} to a commit in models.toml; today's is "
                f'revision = "{commit}"'
            )
        return Path(
            snapshot_download(
                model.weights,
                revision=model.revision,
                allow_patterns=list(_files(model)),
                cache_dir=model.runtime.get("download_root"),
                local_files_only=model.runtime.get("local_files_only", False),
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"model {model.name}: {model.weights!r} is neither a folder nor a model on the hub"
        ) from error
    except (ClientError, OSError) as error:
        cause = first_line(error)
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
            raise ModelError(
                f"model {model.name}: the Hugging Face hub has no {wanted} that you may read: check both in "
                "models.toml, and HF_TOKEN"
            ) from error
        if isinstance(error, OSError) and not isinstance(
            error, (ConnectionError, FileNotFoundError, ClientError)
        ):
            raise ModelError(f"model {model.name}: {wanted} cannot be fetched: {cause}") from error
        raise ModelError(
            f"model {model.name}: the Hugging Face hub is out of reach, and {wanted} is not in its cache: "
            "try again with a network, or set HF_ENDPOINT to a mirror, or copy the model's folder here and "
            f'write weights = "./that_folder" ({cause})'
        ) from error


def hub_reachable() -> str:
    """Why the hub cannot be reached, in a few words; empty when it can."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]

    try:
        HfApi().model_info("openai/whisper-tiny", timeout=5)
    except (ClientError, OSError) as error:
        return first_line(error)
    return ""


def where_weights_are(model: "ModelVersion") -> str:
    """The folder with the model's files, or that they will be fetched; nothing is fetched now.

    Raises :class:`~speech.errors.ModelError` when loading the model would.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if is_folder(model.weights):
        return str(local_weights(model))
    if not _COMMIT.fullmatch(model.revision):
        raise ModelError(f"model {model.name}: pin {model.weights} to a commit: set revision in models.toml")
    try:
        cache = model.runtime.get("download_root")
        fetched = snapshot_download(
            model.weights, revision=model.revision, cache_dir=cache, local_files_only=True
        )
    except LocalEntryNotFoundError:
        problem = hub_reachable()
    else:
        return str(_checked(model, Path(fetched)))
    if problem:
        raise ModelError(
            f"model {model.name}: not fetched yet, and the Hugging Face hub is out of reach: try again with "
            "a network, or set HF_ENDPOINT to a mirror, or weights to a folder in models.toml"
        )
    return f"{model.weights}, to be fetched from the hub when it is first used"


def weights_identity(model: "ModelVersion") -> str:
    """What the weights are, for the model's fingerprint: a folder by its content, the hub by its commit."""
    if not is_folder(model.weights):
        return f"{model.weights}@{model.revision}"
    return digest_of(model, Path(model.weights))  # not there: loading says so, and other models go on


def digest_of(model: "ModelVersion", folder: Path) -> str:
    """32 hex digits over the names and bytes of the model's files in a folder."""
    files = sorted({path for pattern in _files(model) for path in folder.glob(pattern)})
    return _digest(tuple(_state(path) for path in files))


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    """A hash over the files' names and bytes; large ones are not read again until they change."""
    total = hashlib.blake2b(digest_size=16)
    for path, size, _ in files:
        with Path(path).open("rb") as file:
            total.update(f"{Path(path).name} {size} ".encode())
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _changed_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
