"""A damaged DuckDB file is made anew from the store, and nothing else is ever thrown away."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from resources.search import search
from resources.store import Store
from resources.warehouse import Content, Warehouse
from speech.errors import QueryError, WarehouseError
from tests.conftest import ROOT
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


def with_nothing_in_it(path: Path) -> None:
    """As a disk that is full leaves it."""
    path.write_bytes(b"")


def with_zeros_in_it(path: Path) -> None:
    """As a power cut leaves it."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.case(35)
@pytest.mark.parametrize(
    "damage",
    [
        without_its_end,
        without_its_head,
        with_a_damaged_log,
        with_older_tables,
        with_nothing_in_it,
        with_zeros_in_it,
    ],
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


def texts(store: Store, *numbers: int) -> None:
    for number in numbers:
        add_batch(store, f"{number}.mp4", " ".join(f"w{n}" for n in range(300)))


LOAD_AND_BE_KILLED = """
import os, sys
from resources import warehouse
from resources.store import Store

def killed_at_the_last(done, total):
    if done == total:
        os._exit(9)

warehouse.BYTES_PER_TRANSACTION = 1
loading = warehouse.Warehouse(path=sys.argv[1])
with loading.exclusive():
    loading.load(Store(url=sys.argv[2]), killed_at_the_last)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Content]]:
    """A store, and a warehouse with three videos in its file and five in its log, a transaction each;
    and what an undisturbed one holds.
    """
    root = tmp_path_factory.mktemp("killed")
    store, warehouse = Store(url=f"file://{root / 'store'}"), Warehouse(path=str(root / "w.duckdb"))
    texts(store, *range(3))
    load(warehouse, store)
    texts(store, *range(3, 8))
    command = [sys.executable, "-c", LOAD_AND_BE_KILLED, warehouse.path, store.url]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    undisturbed = Warehouse(path=str(root / "undisturbed.duckdb"))
    load(undisturbed, store)
    return root, undisturbed.contents()


def flipped(data: bytearray, at: int) -> None:
    data[at] ^= 0xFF


def cut(data: bytearray, at: int) -> None:
    del data[at:]


def zeros_from_there(data: bytearray, at: int) -> None:
    """As a power cut leaves a file whose length was written, and whose end was not."""
    data[at:] = bytes(len(data) - at)


@pytest.mark.case(35)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("damage", [flipped, cut, zeros_from_there])
@pytest.mark.parametrize("file", ["w.duckdb", "w.duckdb.wal"])
def test_wherever_it_is_damaged_all_rows_come_back(
    file: str,
    damage: Callable[[bytearray, int], None],
    share: float,
    killed: tuple[Path, dict[str, Content]],
    tmp_path: Path,
) -> None:
    """The log may end early without a word: what was committed behind the damage is loaded again."""
    root, undisturbed = killed
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=1.0)
    for name in ("w.duckdb", "w.duckdb.wal"):
        shutil.copy(root / name, tmp_path / name)
    data = bytearray((tmp_path / file).read_bytes())
    damage(data, int(share * len(data)))
    (tmp_path / file).write_bytes(data)
    with warehouse.exclusive():
        warehouse.load(Store(url=f"file://{root / 'store'}"), lambda *_: None)
    assert warehouse.contents() == undisturbed
    assert undisturbed["words"].rows == 8 * 300


@pytest.mark.case(35)
def test_every_block_is_looked_at(store: Store, tmp_path: Path) -> None:
    """DuckDB reads few of them in a load, and the copy for readers would have the damage, too."""
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    texts(store, *range(4))
    load(warehouse, store)
    path, before = Path(warehouse.path), warehouse.contents()
    whole = path.read_bytes()
    assert load(warehouse, store).objects == 0  # or this release of DuckDB sums its blocks up otherwise
    written = [at for at in range(3 * 4096, len(whole), 1 << 18) if any(whole[at : at + 4096])]
    assert len(written) > 5
    for at in written:
        data = bytearray(whole)
        flipped(data, at + 1000)
        path.write_bytes(data)
        assert warehouse.contents() == {}, at
    assert load(warehouse, store).objects == 8
    assert warehouse.contents() == before


def test_another_versions_tables_are_told_apart(store: Store, tmp_path: Path) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("CREATE TABLE identity (warehouse VARCHAR); CREATE TABLE words (word VARCHAR)")
        with pytest.raises(QueryError, match="made by another version"):
            search(connection, "word", 1)
    with pytest.raises(WarehouseError, match="made by another version"), warehouse.connect():
        pass
    add_batch(store, "a.mp4", "one two three")
    assert load(warehouse, store).words == 3


def write_a_list(path: Path) -> None:
    path.write_text("a shopping list")


def write_invoices(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE invoices AS SELECT 1 AS number")


@pytest.mark.parametrize(
    ("write", "says"),
    [(write_a_list, "is no DuckDB file"), (write_invoices, "holds tables that are not of this program")],
)
def test_what_is_no_warehouse_is_left_alone(
    write: Callable[[Path], None], says: str, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "w.duckdb"
    write(path)
    before, warehouse = path.read_bytes(), Warehouse(path=str(path))
    for work in (lambda: load(warehouse, store), warehouse.contents):
        with pytest.raises(WarehouseError, match=re.escape(f"{path} {says}, so it stays as it is")):
            work()
    assert path.read_bytes() == before


HOLD_IT = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""
BE_THE_WRITER = """
import sys
from resources.warehouse import Warehouse
with Warehouse(path=sys.argv[1]).exclusive():
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.case(35)
@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        (HOLD_IT, "another program has the warehouse open"),
        (BE_THE_WRITER, "another load has been at work for over 0.3 s"),
    ],
    ids=["another program", "another load"],
)
def test_what_somebody_has_open_is_waited_for_and_then_it_is_said(
    holder: str, sentence: str, store: Store, tmp_path: Path
) -> None:
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"), wait_s=0.3)
    add_batch(store, "a.mp4", "one two three")
    load(warehouse, store)
    add_batch(store, "b.mp4", "four five")
    command = [sys.executable, "-c", holder, warehouse.path]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        assert process.stdout
        assert process.stdout.readline()
        began = time.monotonic()
        with pytest.raises(WarehouseError, match=sentence):
            load(warehouse, store)
        assert time.monotonic() - began < 20
        # Whoever has more patience gets it as soon as it is free.
        patient = elsewhere.submit(load, Warehouse(path=warehouse.path, wait_s=60), store)
        time.sleep(0.5)
        assert not patient.done()
        process.communicate()
        assert patient.result(60).words == 5
