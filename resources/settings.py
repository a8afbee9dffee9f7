"""The environment: every setting has a default that works in a clone."""

import getpass
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from speech.errors import AsrError, what_is_wrong

HOME = Path(__file__).parents[1]
"""The clone: models.toml, the samples and the instance configuration lie here."""

MEDIA_SUFFIXES = (
    ".mp4 .m4v .mov .mkv .webm .avi .ts .m2ts .mts .mpg .mpeg .flv .wmv .asf .3gp "
    ".wav .mp3 .m4a .aac .mka .flac .ogg .oga .opus .wma .aiff .aif .caf .amr .ac3"
)


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


def _as_path(path_or_url: Any) -> Path:
    return local_path(as_url(str(path_or_url))) or Path(path_or_url).absolute()


def _state(found: dict[str, Any]) -> Path:
    """Where this machine keeps what is not in the store."""
    return local_path(found["store_url"]) or Path("data").absolute()


def _own_models() -> Path:
    own = Path("models.toml")
    return own if own.exists() else HOME / own


Url = Annotated[str, AfterValidator(as_url)]
LocalPath = Annotated[Path, AfterValidator(_as_path)]


class Settings(BaseSettings):
    """What the environment says: ``ASR_SOURCE_URL`` is ``source_url``, and so on; empty counts as not set.

    Plain paths become URLs where a URL is meant; relative ones are relative to the working folder.
    """

    model_config = SettingsConfigDict(
        alias_generator=lambda name: f"ASR_{name.upper()}",  # also what an error calls it
        env_ignore_empty=True,
        frozen=True,
        validate_default=True,
    )

    source_url: Url = "videos"
    queue_url: str = ""
    store_url: Url = "data"
    warehouse: LocalPath = Field(default_factory=lambda found: _state(found) / "warehouse.duckdb")
    models: LocalPath = Field(default_factory=_own_models)
    champion: str | None = None
    postgres_url: str = Field(default="", repr=False)  # it holds a password
    alert_url: str = Field(default="", repr=False)  # whoever knows it may write there
    otlp_endpoint: str = Field(default="", alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    dagster_url: str = "http://127.0.0.1:3000"
    explorer_token: str = Field(default="", repr=False)  # whoever knows it may read all words
    dagster_home: LocalPath = Field(
        default_factory=lambda found: _state(found) / "dagster", alias="DAGSTER_HOME"
    )
    suffixes: str = MEDIA_SUFFIXES
    min_bytes: NonNegativeInt = 0
    max_bytes: PositiveInt = 5 << 40  # no object of S3 is larger
    min_age_s: NonNegativeFloat = 5.0
    batch_videos: PositiveInt = 64
    batch_wait_s: NonNegativeFloat | None = None
    words_within_s: PositiveInt = 3600
    backend: Literal["here", "ray", "sagemaker"] = "here"
    device: str = "auto"
    workers: NonNegativeInt = 0
    ray_address: str = ""
    sagemaker_endpoint: str = "asr"
    extractor: Literal["here", "mediaconvert"] = "here"
    mediaconvert_role: str = ""
    mediaconvert_queue: str = ""
    max_run_s: NonNegativeInt = 24 * 3600
    executor: Literal["in_process", "kubernetes"] = "in_process"
    publish_every_s: NonNegativeFloat = Field(
        default_factory=lambda found: 20.0 if local_path(found["source_url"]) else 60.0
    )

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
        """Raises :class:`~speech.errors.AsrError` for a value that cannot be."""
        try:
            return cls()
        except ValidationError as error:
            raise AsrError(f"set it to something else: {what_is_wrong(error)}") from error


def who() -> str:
    """Whoever asks, as this machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in containers
        return "unknown"
