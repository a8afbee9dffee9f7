"""Model versions: named entries of ``models.toml``, each with a fingerprint of all that changes its words."""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from speech.engines import ENGINES
from speech.errors import ModelError, what_is_wrong
from speech.types import Seconds
from speech.voice import VOICE_VERSION
from speech.weights import is_folder, weights_identity

MAX_WINDOW_S: Seconds = 30.0
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One way to turn speech into words.

    ``weights`` is a local folder (``./here``, relative to ``models.toml``, or ``/there``) or a repository
    of the Hugging Face hub, whose ``revision`` is a commit. ``options`` are the engine's own decoding
    options; ``max_window_s`` is the longest window it is given, in seconds (at most 30). With
    ``channels = "apart"`` the sides of stereo are heard one after the other: a call with a speaker on each.
    """

    name: str
    engine: str
    enabled: bool = True
    champion: bool = False
    weights: str = ""
    revision: str = ""
    language: str = "en"
    channels: Literal["mixed", "apart"] = "mixed"
    max_window_s: Annotated[Seconds, Field(ge=1.0, le=MAX_WINDOW_S)] = MAX_WINDOW_S
    options: dict[str, Any] = field(default_factory=dict)
    description: str = ""

    @property
    def fingerprint(self) -> str:
        """32 hex digits over everything that changes the words.

        The version of the engine's package is part of it because that package carries the decoder,
        and for some engines the weights.
        """
        entry = ENGINES[self.engine]
        try:
            release = version(entry.package)
        except PackageNotFoundError:
            release = "not installed"  # loading the model says so, and other models go on
        words = {
            "engine": f"{self.engine} {entry.version}",
            "package": f"{entry.package} {release}",
            "language": self.language,
            "channels": self.channels,
            "max_window_s": self.max_window_s,
            "options": self.options,
            "voice": VOICE_VERSION,
            **({"weights": weights_identity(self)} if self.weights else {}),
        }
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_models(path: str | Path) -> dict[str, ModelVersion]:
    """All entries of a ``models.toml``, by name, in the file's order.

    Raises :class:`~speech.errors.ModelError` when the file is missing or an entry is wrong.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; ASR_MODELS names the file of model versions") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as TOML: {error}") from error
    models = {name: _entry(path, name, table) for name, table in tables.items()}
    champions = [model.name for model in models.values() if model.champion and model.enabled]
    if len(champions) != 1:
        raise ModelError(
            f"{path}: exactly one enabled model has champion = true, not {len(champions)} ({champions})"
        )
    return models


_KEYS = {field.name for field in fields(ModelVersion)} - {"name"}
_VERSION = TypeAdapter(ModelVersion)


def _entry(path: str | Path, name: str, table: Any) -> ModelVersion:
    if not _NAME.fullmatch(name):
        raise ModelError(f"{path}: [{name}]: a model's name is letters, digits and underscores")
    if not isinstance(table, dict):
        raise ModelError(f"{path}: {name} is not a table; write [{name}] and its settings below it")
    if unknown := set(table) - _KEYS:
        raise ModelError(f"{path}: [{name}] has unknown settings {sorted(unknown)}; known: {sorted(_KEYS)}")
    if table.get("engine") not in ENGINES:
        raise ModelError(
            f"{path}: [{name}] has engine {table.get('engine')!r}; known engines: {', '.join(ENGINES)}"
        )
    try:
        model = _VERSION.validate_python({"name": name, **table})
    except ValidationError as error:
        raise ModelError(f"{path}: [{name}] is wrong: {what_is_wrong(error)}") from error
    if ENGINES[model.engine].weights is not bool(model.weights):
        wrong = (
            "has weights, but its engine carries its own: remove them"
            if model.weights
            else "lacks weights: a folder (./here), or a repository of the Hugging Face hub and its revision"
        )
        raise ModelError(f"{path}: [{name}] {wrong}")
    if is_folder(model.weights):
        beside = Path(path).absolute().parent / Path(model.weights).expanduser()
        model = replace(model, weights=str(beside.resolve()))
    return model
