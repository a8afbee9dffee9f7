"""The environment: every setting has a default that works in a clone."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

HOME = Path(__file__).parents[1]
"""The clone: models.toml, the samples and the instance configuration lie here."""


def as_url(path_or_url: str) -> str:
    """A plain path becomes a ``file://`` URL with an absolute path; a URL stays as it is.

    >>> as_url("s3://bucket/videos/")
    's3://bucket/videos'
    """
    if "://" in path_or_url and not path_or_url.startswith("file://"):
        return path_or_url.rstrip("/")
    path = Path(path_or_url.removeprefix("file://") or "/").expanduser().absolute()
    # Not as_uri(): a space or an umlaut in a folder's name stays what it is.
    return f"file://{path}"


def local_path(url: str) -> Path | None:
    """The folder that a ``file://`` URL names; None for any other URL."""
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, with plain paths turned into URLs where a URL is meant."""

    source_url: str
    store_url: str
    warehouse: Path
    models: Path
    champion: str | None
    dagster_home: Path

    def export(self) -> None:
        """Tell child processes the same, wherever they start."""
        os.environ |= {
            "ASR_SOURCE_URL": self.source_url,
            "ASR_STORE_URL": self.store_url,
            "ASR_WAREHOUSE": str(self.warehouse),
            "ASR_MODELS": str(self.models),
            "DAGSTER_HOME": str(self.dagster_home),
        }

    @classmethod
    def from_env(cls) -> Self:
        """Read ``ASR_*`` and ``DAGSTER_HOME``; relative paths are relative to the working folder."""
        store_url = as_url(os.environ.get("ASR_STORE_URL") or "data")
        state = local_path(store_url) or Path("data").absolute()
        own_models = Path("models.toml")
        return cls(
            source_url=as_url(os.environ.get("ASR_SOURCE_URL") or "videos"),
            store_url=store_url,
            warehouse=_path("ASR_WAREHOUSE", state / "warehouse.duckdb"),
            models=_path("ASR_MODELS", own_models if own_models.exists() else HOME / "models.toml"),
            champion=os.environ.get("ASR_CHAMPION") or None,
            dagster_home=_path("DAGSTER_HOME", state / "dagster"),
        )


def _path(variable: str, default: Path) -> Path:
    given = os.environ.get(variable)
    return (local_path(as_url(given)) if given else None) or default.absolute()
