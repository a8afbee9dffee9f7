"""``asr rebuild``: the DuckDB file made anew from the store."""

from collections.abc import Iterator

from resources import snapshot
from resources.settings import Settings
from resources.store import Store
from resources.warehouse import Content, Warehouse


def rebuild(settings: Settings) -> Iterator[tuple[str, Content | None, Content]]:
    """Rebuild and publish; each table, with what it held before (None: it was not there) and holds now.

    A load that was due makes a difference, and nothing else does. Raises
    :class:`~speech.errors.WarehouseError` while another load is at work.
    """
    store, warehouse = Store(url=settings.store_url), Warehouse(path=str(settings.warehouse))
    with warehouse.exclusive() as path:
        before = warehouse.contents()
        report = warehouse.rebuild(store, lambda *_: None)
        now = warehouse.contents()
        snapshot.publish(store, path, report)
    for name, content in now.items():
        yield name, before.get(name), content
