"""A process of the platform that is killed at a write, without a process: in the twinkling of an eye."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
from dagster import DagsterInstance, Definitions

from asr_assets.running import Runner
from resources.loader import Loader
from resources.store import Store
from sensors.batches import BatchLimits
from speech.engines import Asked, Hardware
from speech.listening import Listener
from speech.media import MediaDecoder
from speech.models import ModelVersion
from speech.types import HeardWindow, Window


class Killed(BaseException):
    """The process is gone."""


class Reaper:
    """Ends a process before or after its n-th write: nothing that it does later reaches the disk."""

    def __init__(self, at: int | None, warehouse: Path) -> None:
        self._left, self._warehouse = at, warehouse
        self._kept: dict[Path, bytes] = {}
        self.dead = False

    def around(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def mortal(*arguments: Any, **options: Any) -> Any:
            self._moment()
            answer = write(*arguments, **options)
            self._moment()
            return answer

        return mortal

    def _moment(self) -> None:
        if self._left == 0 and not self.dead:
            self.dead = True
            # What runs on here (a connection that is closed) would not in a process that is killed.
            self._kept = {path: path.read_bytes() for path in self._files()}
        if self._left:
            self._left -= 1
        if self.dead:
            raise Killed

    def _files(self) -> list[Path]:
        return list(self._warehouse.parent.glob(f"{self._warehouse.name}*"))

    def leave_what_was_there(self) -> None:
        for path in self._files():
            path.unlink()
        for path, data in self._kept.items():
            path.write_bytes(data)

    def watch(self, stack: ExitStack) -> None:
        for name in ("put", "create", "delete"):
            stack.enter_context(patch.object(Store, name, self.around(getattr(Store, name))))
        loader = wraps(Loader)(lambda connection, store: Loader(Mortal(connection, self), store))  # type: ignore[arg-type]
        stack.enter_context(patch("resources.warehouse.Loader", loader))


class Mortal:
    """A connection whose commits are writes as those to the store are."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, reaper: Reaper) -> None:
        self._connection, self.commit = connection, reaper.around(connection.commit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class Kept(MediaDecoder):
    """A decoder that does not end with a step."""

    def __exit__(self, *_: object) -> None:
        pass


class Remembering(Listener):
    """A loaded model that hears the same window once."""

    def __init__(self, model: ModelVersion, hardware: Hardware) -> None:
        super().__init__(model, hardware)
        self._heard: dict[tuple[bytes, float], HeardWindow] = {}

    def hear(self, windows: Any, asked: Asked) -> list[HeardWindow]:
        return [self._once(window, asked) for window in windows]

    def _once(self, window: Window, asked: Asked) -> HeardWindow:
        known = (window.samples.tobytes(), window.start_s)
        if known not in self._heard:
            (self._heard[known],) = super().hear([window], asked)
        return self._heard[known]


@dataclass
class Desk(Runner):
    """A process of the platform; of those before it knows what is on the disk, and what Dagster has kept."""

    dagster: DagsterInstance | None = None
    definitions: Definitions | None = None

    def __post_init__(self) -> None:
        assert self.dagster
        assert self.definitions
        self.instance = self.dagster
        resources = self.definitions.resources or {}
        self.source, self.store = resources["source"], resources["store"]
        self.models = resources["speech_models"]
        self.limits = BatchLimits.of(self.settings)
