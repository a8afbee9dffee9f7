"""A damaged DuckDB file is made anew from the store, and nothing else is ever thrown away."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from resources.search import search
from resources.store import Store
from resources.warehouse import Warehouse
from speech.errors import QueryError, WarehouseError
from tests.resources.test_warehouse import add_batch, load


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 3 * 4096] = bytes(2 * 4096)
    path.write_bytes(data)


def with_a_damaged_log(path: Path, share: float = 0.1) -> None:
    """As a kill leaves it, with a log, in which a byte is then changed."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET checkpoint_threshold = '1GB'; UPDATE videos SET message = repeat('?', 10000)")
        connection.execute("DELETE FROM spoken_words")
        for part in (path, Path(f"{path}.wal")):
            shutil.copy(part, f"{part}.killed")
    log = bytearray(Path(f"{path}.wal.killed").read_bytes())
    log[int(share * len(log))] ^= 0xFF
    Path(f"{path}.killed").replace(path)
    Path(f"{path}.wal").write_bytes(log)


def with_older_tables(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE made_by")


@pytest.mark.parametrize(
    "damage",
    [without_its_end, without_its_head, with_a_damaged_log, with_older_tables],
    ids=lambda d: d.__name__,
)
def test_what_is_damaged_is_made_anew(damage: Callable[[Path], None], store: Store, tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=1.0)
    for number in range(3):
        add_batch(store, f"{number}.mp4", "one two three")
    load(warehouse, store)
    before = warehouse.contents()
    assert before["words"].rows == 9
    damage(Path(warehouse.path))
    assert warehouse.contents() == {}
    load(warehouse, store)
    assert warehouse.contents() == before


def test_another_versions_tables_are_told_apart(store: Store, tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("CREATE TABLE words (word VARCHAR)")
        with pytest.raises(QueryError, match="made by another version"):
            search(connection, "word", 1)
    with pytest.raises(WarehouseError, match="made by another version"), warehouse.connect():
        pass
    add_batch(store, "a.mp4", "one two three")
    assert load(warehouse, store).words == 3


def test_what_is_no_warehouse_is_left_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_text("a shopping list")
    with pytest.raises(WarehouseError, match=re.escape(f"{path} is no DuckDB file, so it stays as it is")):
        load(Warehouse(path=str(path)), store)
    assert path.read_text() == "a shopping list"


def test_what_another_program_has_open_is_waited_for(store: Store, tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=0.3)
    add_batch(store, "a.mp4", "one two three")
    load(warehouse, store)
    holder = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, warehouse.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline()
        with pytest.raises(WarehouseError, match="another program has the warehouse open"):
            load(warehouse, store)
        process.communicate()
    assert load(warehouse, store).words == 3
