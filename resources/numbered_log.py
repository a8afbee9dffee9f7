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
        self._looked = False

    def read_on(self) -> Iterator[E]:
        """Entries that were not read yet, in order.

        Raises :class:`~speech.errors.StoreError` for an entry that is damaged or missing.
        """
        if not self._looked:
            # Once: a hole in the log must not be taken for its end, and then be written into.
            after = layout.numbered(self._folder, self.tail) if self.tail else None
            for number, key in enumerate(self._keys(after), start=self.tail + 1):
                expected = layout.numbered(self._folder, number)
                if key != expected:
                    raise StoreError(f"{self._store.url}: found {key} where {expected} should be; restore it")
            self._looked = True
        # Asking for the next number costs the same however long the log is; listing does not.
        while (entry := self.entry(self.tail + 1)) is not None:
            self.tail += 1
            yield entry

    def _keys(self, after: str | None) -> list[str]:
        return sorted(found.key for found in self._store.list(self._folder, after))

    def entry(self, number: int) -> E | None:
        """One entry; None when there is none of that number. Raises StoreError when it is damaged."""
        key = layout.numbered(self._folder, number)
        data = self._store.get(key)
        try:
            return None if data is None else self._type.model_validate_json(data)
        except ValidationError as error:
            raise StoreError(f"{self._store.url}/{key} is damaged: restore it from a backup") from error

    def skip(self) -> None:
        """Read to the tail, for those who only need its number."""
        for _ in self.read_on():
            pass

    def append(
        self, decide: Callable[[int], E | None], catch_up: Callable[[], object] | None = None
    ) -> E | None:
        """Add what ``decide(number)`` returns; None adds nothing.

        ``catch_up`` reads the log to its tail and takes in what is there. It runs whenever the store says
        that another writer was faster: what is created under the next number has been decided in knowledge
        of all before it. The caller takes in the new entry.
        """
        if not self._looked:
            (catch_up or self.skip)()
        while (entry := decide(self.tail + 1)) is not None:
            key = layout.numbered(self._folder, entry.number)
            if self._store.create(key, entry.model_dump_json().encode()):
                self.tail = entry.number
                return entry
            (catch_up or self.skip)()
        return None
