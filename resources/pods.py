"""What a model version's step needs of Kubernetes: the table ``kubernetes`` of its entry in ``models.toml``.

It changes no words, so it is no part of the fingerprint.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from speech.errors import ModelError, what_is_wrong
from speech.models import POD

Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi)$")]


class Toleration(BaseModel, frozen=True):
    """A taint of nodes that the pod does not mind; the fields are Kubernetes' own."""

    model_config = ConfigDict(extra="forbid")

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class Pod(BaseModel, frozen=True):
    """How large a pod is, and on which nodes.

    ``memory`` is asked for and never exceeded; ``cpus`` are asked for, and more are taken where nobody else
    wants them. A pod has its ``gpus`` for itself.
    """

    model_config = ConfigDict(extra="forbid")

    gpus: NonNegativeInt = 0
    cpus: PositiveInt = 2
    memory: Memory = "4Gi"
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()

    @classmethod
    def read(cls, path: str | Path, model: str) -> "Pod":
        """That of a model version, from the file of model versions.

        Raises :class:`~speech.errors.ModelError` for what cannot be.
        """
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        try:
            return cls.model_validate(tables[model].get(POD, {}))
        except ValidationError as error:
            raise ModelError(f"{path}: [{model}.{POD}] is wrong: {what_is_wrong(error)}") from error
