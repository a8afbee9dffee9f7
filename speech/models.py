"""Model versions: named entries of ``models.toml``, each with a fingerprint of all that changes its words."""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from speech.engines import ENGINES
from speech.errors import ModelError, what_is_wrong
from speech.types import Seconds
from speech.voice import VOICE_VERSION
from speech.weights import is_folder, weights_identity

Said = TypeVar("Said", bound=BaseModel)
MAX_WINDOW_S: Seconds = 30.0
POLICY = "policy"
"""The one table of ``models.toml`` that is no model version: see :mod:`resources.policy`."""
POD = "kubernetes"
"""The one setting of an entry that is no part of a model version: see :mod:`resources.pods`."""
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One way to turn speech into words.

    ``weights`` is a local folder (``./here``, relative to ``models.toml``, or ``/there``) or a repository
    of the Hugging Face hub, whose ``revision`` is a commit; with a ``digest`` no other files than those are
    loaded. ``language`` is a code, or ``auto``: the one a
    sidecar names, else each window's own. ``prompt`` holds names and words to expect, those of a sidecar are
    added. Windows that cannot be right are heard again at ``temperatures``. ``options`` are the engine's own
    decoding options, and ``runtime`` its settings that change no words. ``max_window_s`` is the longest
    window it is given, in seconds (at most 30). With ``channels = "apart"`` the sides of stereo are heard
    each by itself: a call with a speaker on each.
    While it is not champion it hears a ``share`` of the batches.
    """

    name: str
    engine: str
    enabled: bool = True
    champion: bool = False
    weights: str = ""
    revision: str = ""
    digest: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")] = ""
    language: str = "en"
    prompt: str = ""
    temperatures: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    channels: Literal["mixed", "apart"] = "mixed"
    max_window_s: Annotated[Seconds, Field(ge=1.0, le=MAX_WINDOW_S)] = MAX_WINDOW_S
    options: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
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
            "prompt": self.prompt,
            **({"temperatures": self.temperatures} if entry.draws else {}),
            "channels": self.channels,
            "max_window_s": self.max_window_s,
            "options": self.options,
            "voice": VOICE_VERSION,
            **({"weights": weights_identity(self)} if self.weights else {}),
        }
        return hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=16).hexdigest()


def options_of(model: ModelVersion, kind: type[Said]) -> Said:
    """An engine's own options. Raises :class:`~speech.errors.ModelError` for what it does not know."""
    return _checked(model, kind, "options")


def runtime_of(model: ModelVersion, kind: type[Said]) -> Said:
    """An engine's own settings that change no words. Raises ModelError for what it does not know."""
    return _checked(model, kind, "runtime")


def _checked(model: ModelVersion, kind: type[Said], name: str) -> Said:
    known, said = kind.model_fields.keys(), getattr(model, name)
    if unknown := said.keys() - known:
        raise ModelError(f"model {model.name}: unknown {name} {sorted(unknown)}; known: {', '.join(known)}")
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise ModelError(f"model {model.name}: its {name} are wrong: {what_is_wrong(error)}") from error


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
    models = {name: _entry(path, name, table) for name, table in tables.items() if name != POLICY}
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
    table = {key: value for key, value in table.items() if key != POD}
    if unknown := set(table) - _KEYS:
        known = sorted(_KEYS | {POD})
        raise ModelError(f"{path}: [{name}] has unknown settings {sorted(unknown)}; known: {known}")
    if table.get("engine") not in ENGINES:
        raise ModelError(
            f"{path}: [{name}] has engine {table.get('engine')!r}; known engines: {', '.join(ENGINES)}"
        )
    try:
        model = _VERSION.validate_python({"name": name, **table})
    except ValidationError as error:
        raise ModelError(f"{path}: [{name}] is wrong: {what_is_wrong(error)}") from error
    if bool(ENGINES[model.engine].weights) is not bool(model.weights):
        wrong = (
            "has weights, but its engine carries its own: remove them"
            if model.weights
            else "lacks weights: a folder (./here), or a repository of the Hugging Face hub and its revision"
        )
        raise ModelError(f"{path}: [{name}] {wrong}")
    if model.digest and not model.weights:
        raise ModelError(f"{path}: [{name}] has a digest, but no weights that it could be of: remove it")
    if is_folder(model.weights):
        beside = Path(path).absolute().parent / Path(model.weights).expanduser()
        model = replace(model, weights=str(beside.resolve()))
    entry = ENGINES[model.engine]
    if not entry.asked and (model.language == "auto" or model.prompt):
        asked = 'language = "auto"' if model.language == "auto" else "a prompt"
        raise ModelError(f"{path}: [{name}] has {asked}, which engine {model.engine} knows nothing of")
    return model
