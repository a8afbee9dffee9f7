"""A disk that is full, a file that is damaged."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from asr_assets.running import INSTANCE_CONFIG
from resources import snapshot
from resources.store import Store
from resources.warehouse import Warehouse
from speech.errors import WarehouseError
from tests.conftest import FAST_MODEL, Platform
from tests.resources.published import add_batch, load, rows

pytestmark = pytest.mark.xdist_group("machine")


@contextmanager
def nearly_full(folder: Path, left_kb: int, mb: int = 48) -> Iterator[Callable[[], None]]:
    """A small disk at ``folder``, with so little room left; yields what makes room on it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mb}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk of our own cannot be mounted")
    try:
        disk, ballast = os.statvfs(folder), folder / ".ballast"
        ballast.write_bytes(bytes(disk.f_bavail * disk.f_frsize - (left_kb << 10)))
        yield ballast.unlink
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Place(NamedTuple):
    """What lies on the disk that is full, how much of that is left, and what is said of the path there."""

    variable: str
    below: str
    left_kb: int
    says: str


PLACES = [
    Place("ASR_STORE_URL", "data", 0, "cannot write file://{}/ingest/"),
    Place("ASR_STORE_URL", "data", 24, "cannot write file://{}/"),
    Place("ASR_STORE_URL", "data", 400, "cannot write file://{}/snapshots/"),
    Place("ASR_WAREHOUSE", "w.duckdb", 0, "{}: DuckDB cannot work on it"),
    Place("ASR_WAREHOUSE", "w.duckdb", 200, "{}: DuckDB cannot work on it"),
    Place("TMPDIR", "tmp", 24, "cannot write {}/"),
    Place("DAGSTER_HOME", "home", 0, "{}: Dagster's home cannot be written"),
    Place("DAGSTER_HOME", "home", 64, "{}: Dagster cannot keep its own state there"),
    Place("DAGSTER_HOME", "home", 600, "{}: Dagster cannot keep its own state there"),
]

FULL = ("no space left", "disk is full", "disk i/o error")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: a video's id is part of the tables, and the source is part of its id."""
    origin = Platform(tmp_path_factory.mktemp("source"))
    origin.add("delayed_audio.mp4", "silent.mp4")
    (origin.root / "models.toml").write_text(FAST_MODEL)
    return origin.root


def platform_on(source: Path, root: Path) -> Platform:
    env = {"ASR_SOURCE_URL": str(source / "videos"), "ASR_MODELS": str(source / "models.toml")}
    here = {"ASR_WAREHOUSE": str(root / "w.duckdb"), "DAGSTER_HOME": str(root / "home")}
    return Platform(root, env | here)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    platform = platform_on(source, tmp_path_factory.mktemp("undisturbed"))
    platform.must("run", "--workers", "1")
    return platform.tables()


@pytest.mark.case(34)
@pytest.mark.long
@pytest.mark.parametrize("place", PLACES, ids=lambda p: f"{p.variable}-{p.left_kb}")
def test_on_a_full_disk_a_run_says_what_is_full_and_goes_on_when_there_is_room(
    place: Place, source: Path, undisturbed: dict[str, list[str]], tmp_path: Path
) -> None:
    platform, disk = platform_on(source, tmp_path), tmp_path / "disk"
    with nearly_full(disk, place.left_kb) as make_room:
        full = disk / place.below
        if place.variable == "TMPDIR":
            full.mkdir()
        platform.env[place.variable] = str(full)
        done = platform.asr("run", "--workers", "1")
        assert done.returncode == 1, done.stderr
        assert place.says.format(full) in done.stderr
        assert any(sign in done.stderr.lower() for sign in FULL)
        assert "Traceback" not in done.stderr
        make_room()
        platform.must("run", "--workers", "1")
        assert platform.tables() == undisturbed
        home = Path(platform.environment["DAGSTER_HOME"])
        assert (home / "dagster.yaml").read_text() == INSTANCE_CONFIG.read_text()


@pytest.mark.case(34)
@pytest.mark.parametrize("left_kb", [0, 8, 300, 1000, 2500])
@pytest.mark.parametrize("loaded", [0, 2], ids=["the first load", "a later one"])
def test_a_load_on_a_full_disk_damages_nothing(
    left_kb: int, loaded: int, store: Store, tmp_path: Path
) -> None:
    """At 0 not even a header can be written, then no log, no checkpoint; the readers' copy is elsewhere."""
    disk = tmp_path / "disk"
    warehouse, control = (Warehouse(path=str(path / "w.duckdb"), wait_s=1.0) for path in (disk, tmp_path))
    video = " ".join(f"w{n}" for n in range(4000))
    for number in range(loaded):
        add_batch(store, f"{number}.mp4", video)
    if loaded:
        load(control, store)
        Path(control.path).rename(tmp_path / "former")
    for number in range(loaded, loaded + 6):
        add_batch(store, f"{number}.mp4", video)
    load(control, store)
    with nearly_full(disk, left_kb + (4000 if loaded else 0)) as make_room:
        if loaded:
            shutil.copy(tmp_path / "former", warehouse.path)
        with pytest.raises(WarehouseError, match=r"w\.duckdb.*[Nn]o space left"):
            load(warehouse, store)
        with pytest.raises(WarehouseError, match=r"w\.duckdb.*[Nn]o space left"), warehouse.exclusive():
            warehouse.rebuild(store, lambda *_: None)
        assert rows(store, "SELECT count(*) FROM videos") == [(loaded + 6,)]  # as it was published
        make_room()
        load(warehouse, store)
        assert warehouse.contents() == control.contents()


@pytest.mark.case(34)
@pytest.mark.parametrize("left_kb", [0, 100])
def test_a_reader_whose_cache_is_full_is_told_so(left_kb: int, bucket: str, tmp_path: Path) -> None:
    store = Store(url=f"s3://{bucket}")
    add_batch(store, "a.mp4", "one two three")
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    disk = tmp_path / "disk"
    with nearly_full(disk, left_kb) as make_room:
        cache = disk / "cache"
        full = rf"^{cache}: there must be room for a copy of the words \(No space left on device\)"
        with pytest.raises(WarehouseError, match=full), snapshot.read(store, cache):
            pass
        make_room()
        with snapshot.read(store, cache) as connection:
            assert connection.execute("SELECT count(*) FROM words").fetchall() == [(3,)]


@pytest.mark.case(35)
def test_a_copy_that_is_damaged_is_told_so(store: Store, tmp_path: Path) -> None:
    add_batch(store, "a.mp4", " ".join(f"w{n}" for n in range(5000)))
    load(Warehouse(path=str(tmp_path / "w.duckdb")), store)
    (copy,) = (tmp_path / "store" / "snapshots").glob("*.duckdb")
    whole, said = np.fromfile(copy, np.uint8), list[str]()
    for block in range(3 * 4096, len(whole), 1 << 18):
        data = whole.copy()
        data[block + 4096] ^= 0xFF
        data.tofile(copy)
        try:
            with snapshot.read(store, tmp_path) as reader:
                reader.execute("SELECT max(start_s + end_s), max(word || '.') FROM words").fetchall()
        except WarehouseError as error:
            said.append(str(error))
    assert any("the snapshot cannot be read: Corrupt" in sentence for sentence in said), said
