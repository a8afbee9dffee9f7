"""An append-only log of numbered objects that any number of writers may share.

A writer reads to the tail and PUTs the next number with create-only. When another writer was
faster the PUT is refused, the writer reads on and decides anew. So every entry was decided in full
knowledge of all entries before it, with no lock and no server.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from resources import layout
from resources.store import Store
from speech.errors import StoreError


class Entry(BaseModel, frozen=True):
    """Base of all entries; ``number`` counts from 1 without a gap."""

    number: int


E = TypeVar("E", bound=Entry)


class NumberedLog(Generic[E]):
    """The log in one folder of the store, read up to :attr:`tail` so far."""

    def __init__(self, store: Store, folder: str, entry_type: type[E]) -> None:
        self._store, self._folder, self._type = store, folder, entry_type
        self.tail = 0

    def read_on(self) -> Iterator[E]:
        """Entries that were not read yet, in order.

        Raises :class:`~speech.errors.StoreError` for an entry that is damaged or missing.
        """
        after = layout.numbered(self._folder, self.tail) if self.tail else None
        for key in sorted(found.key for found in self._store.list(self._folder, after)):
            expected = layout.numbered(self._folder, self.tail + 1)
            data = self._store.get(key)
            if key != expected or data is None:
                raise StoreError(f"{self._store.url}: found {key} where {expected} should be; restore it")
            try:
                entry = self._type.model_validate_json(data)
            except ValidationError as error:
                raise StoreError(f"{self._store.url}/{key} is damaged: restore it from a backup") from error
            self.tail += 1
            yield entry

    def skip(self) -> None:
        """Read to the tail, for those who only need its number."""
        for _ in self.read_on():
            pass

    def append(
        self, decide: Callable[[int], E | None], catch_up: Callable[[], None] | None = None
    ) -> E | None:
        """Add what ``decide(number)`` returns; None adds nothing.

        ``catch_up`` reads the log to its tail and takes in what is there; it runs before each
        decision. The new entry is read back like any other.
        """
        while True:
            (catch_up or self.skip)()
            entry = decide(self.tail + 1)
            if entry is None:
                return None
            key = layout.numbered(self._folder, entry.number)
            if self._store.create(key, entry.model_dump_json().encode()):
                return entry
