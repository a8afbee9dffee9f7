"""``SpeechModels``: the model versions as a config resource."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dagster import ConfigurableResource
from pydantic import Field

from resources import backends
from resources.backends import HERE, Job, Transcribing
from resources.policy import Policy
from resources.settings import Settings
from resources.store import Store
from speech.engines import Hardware
from speech.errors import ModelError
from speech.models import ModelVersion, read_models
from speech.pipeline import Transcriber


class SpeechModels(ConfigurableResource[Any]):
    """The model versions of ``models.toml``.

    What changes words stands in the file and in its fingerprint. What does not, stands here, and can
    be set for one run in the Launchpad.
    """

    path: str = Field(description="The file of model versions")
    champion: str = Field(default="", description="The first champion, where it is not the file's")
    workers: int = Field(
        default=0, ge=0, description="Processes that transcribe side by side; 0 is one for each device"
    )
    device: str = Field(
        default="auto",
        description="auto (all GPUs, else the CPU), cpu, cuda, mps, or a list: cuda:0, cuda:1, cpu",
    )
    batch_size: int = Field(default=16, ge=1, description="Windows heard at once by an engine that can")
    backend: str = Field(default=HERE, description="Where it is done: here, ray, sagemaker")
    ray_address: str = Field(default="", description="The Ray cluster; empty: one on this machine")
    sagemaker_endpoint: str = Field(default="asr", description="What the names of endpoints begin with")

    @classmethod
    def of(cls, settings: Settings) -> "SpeechModels":
        """As the environment says. Raises ModelError for an ``ASR_CHAMPION`` that the file does not have."""
        models = cls(
            path=str(settings.models),
            champion=settings.champion or "",
            device=settings.device,
            workers=settings.workers,
            backend=settings.backend,
            ray_address=settings.ray_address,
            sagemaker_endpoint=settings.sagemaker_endpoint,
        )
        if models.champion and models.champion not in models.all:
            raise ModelError(f"ASR_CHAMPION is {models.champion!r}, but there are: {', '.join(models.all)}")
        return models

    @property
    def all(self) -> dict[str, ModelVersion]:
        """Every entry, by name. Raises :class:`~speech.errors.ModelError` if the file is wrong."""
        return read_models(self.path)

    @property
    def enabled(self) -> list[ModelVersion]:
        """The versions that have an asset, in the file's order; the first champion always has one."""
        return [m for m in self.all.values() if m.enabled or m.name == self.first_champion]

    @property
    def policy(self) -> Policy:
        """What the team has decided about them. Raises ModelError if the file is wrong."""
        return Policy.read(self.path, {model.name for model in self.enabled})

    @property
    def first_champion(self) -> str:
        """The champion of an empty store."""
        return self.champion or next(m.name for m in self.all.values() if m.enabled and m.champion)

    @property
    def states(self) -> dict[str, str]:
        """What each version is here, by name: disabled, enabled or first champion."""
        return (
            dict.fromkeys(self.all, "disabled")
            | {model.name: "enabled" for model in self.enabled}
            | {self.first_champion: "first champion"}
        )

    def get(self, name: str) -> ModelVersion:
        """Raises :class:`~speech.errors.ModelError` for a name that the file does not have."""
        try:
            return self.all[name]
        except KeyError:
            raise ModelError(
                f"unknown model {name!r}; {Path(self.path).name} has: {', '.join(self.all)}"
            ) from None

    def enabled_version(self, name: str) -> ModelVersion:
        """Raises ModelError for one that is not there, or not switched on."""
        model = self.get(name)
        if model.name not in {enabled.name for enabled in self.enabled}:
            raise ModelError(
                f"model {name} is not switched on: set enabled = true in its entry of {self.path}"
            )
        return model

    def load(self, model: ModelVersion, store: Store, batch: str) -> AbstractContextManager[Transcribing]:
        """A version's weights, loaded wherever this run is to work on the batch."""
        if self.backend == HERE:
            return Transcriber(model, workers=self.workers, hardware=self._hardware)
        return backends.load(self.backend, self._job(model, store, batch))

    def describe(self, model: ModelVersion, store: Store) -> str:
        """What its backend is like. Raises ModelError when it cannot be reached, or is none."""
        return backends.describe(self.backend, self._job(model, store, batch=""))

    def _job(self, model: ModelVersion, store: Store, batch: str) -> Job:
        at = {"ray": self.ray_address, "sagemaker": self.sagemaker_endpoint}.get(self.backend, "")
        return Job(model, store, batch, self._hardware, self.workers, at)

    @property
    def _hardware(self) -> Hardware:
        return Hardware(device=self.device, batch_size=self.batch_size)
