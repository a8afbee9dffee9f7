"""The store: the same behaviour in a folder and over S3."""

import pyarrow as pa
import pytest

from resources.store import Store
from speech.errors import StoreError


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    if request.param == "folder":
        found: Store = request.getfixturevalue("store")
        return found
    return Store(url=f"s3://{request.getfixturevalue('bucket')}/platform")


def test_objects_come_back_as_they_were_put(any_store: Store) -> None:
    assert any_store.get("a/b=1/c") is None
    assert any_store.head("a/b=1/c") is None
    assert any_store.open("a/b=1/c") is None
    etag = any_store.put("a/b=1/c", b"first")
    assert any_store.get("a/b=1/c") == b"first"
    head = any_store.head("a/b=1/c")
    assert head is not None
    assert (head.key, head.size, head.etag) == ("a/b=1/c", 5, etag)
    assert any_store.put("a/b=1/c", b"second!") != etag


def test_create_refuses_to_replace(any_store: Store) -> None:
    assert any_store.create("log/1", b"mine")
    assert not any_store.create("log/1", b"yours")
    assert any_store.get("log/1") == b"mine"


def test_listing_starts_after_a_key_and_deleting_twice_is_harmless(any_store: Store) -> None:
    for number in range(3):
        any_store.put(f"log/{number}", b"x")
    any_store.put("logbook", b"another folder")
    assert sorted(found.key for found in any_store.list("log", after="log/0")) == ["log/1", "log/2"]
    any_store.delete("log/1")
    any_store.delete("log/1")
    assert sorted(found.key for found in any_store.list("log")) == ["log/0", "log/2"]


def test_files_and_ranges(any_store: Store) -> None:
    any_store.put("object", bytes(range(256)))
    with any_store.as_local_file("object") as path:
        assert path.read_bytes() == bytes(range(256))
    file = any_store.open("object")
    assert file is not None
    reader = pa.PythonFile(file, mode="r")
    reader.seek(250)
    assert reader.read() == bytes(range(250, 256))
    with pytest.raises(StoreError, match="missing from the store"), any_store.as_local_file("nope"):
        pass


def test_a_store_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(StoreError, match="ASR_STORE_URL"):
        Store(url="nonsense://x").put("a", b"")
