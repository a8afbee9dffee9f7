"""The store: the same behaviour in a folder and over S3."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from resources.champions import Champion, Change, promote, reigning
from resources.ingest_log import IngestLog
from resources.observations import Video
from resources.store import Store
from speech.errors import StoreError
from tests.faults.proxy import Fault, Proxy, Trouble, proxy


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


@pytest.mark.case(32)
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


@pytest.fixture
def through(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What lies between a store of this test and its bucket."""
    with proxy(s3_server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        monkeypatch.setattr("resources.store.WAITS_S", (0.02, 0.1, 0.2))
        yield between


@pytest.mark.case(32)
@pytest.mark.parametrize("fault", [Fault.LOST, Fault.RESET, Fault.CONFLICT, Fault.BUSY])
def test_who_created_an_object_is_told_so_whatever_became_of_the_answer(
    fault: Fault, bucket: str, through: Proxy
) -> None:
    store = Store(url=f"s3://{bucket}")
    through.troubles.append(Trouble(fault, "PUT"))
    assert store.create("log/1", b"mine")
    assert store.get("log/1") == b"mine"
    assert not store.create("log/1", b"yours")


@pytest.mark.case(32)
def test_a_conflict_without_end_is_told_in_a_sentence(bucket: str, through: Proxy) -> None:
    through.troubles.append(Trouble(Fault.CONFLICT, "PUT", which=range(10**9)))
    with pytest.raises(StoreError, match=r"cannot write .*/log/1"):
        Store(url=f"s3://{bucket}").create("log/1", b"mine")


@pytest.mark.case(32)
@pytest.mark.parametrize("fault", [Fault.LOST, Fault.CONFLICT])
def test_who_wrote_an_entry_and_never_heard_of_it_goes_on_with_what_follows(
    fault: Fault, bucket: str, through: Proxy
) -> None:
    """Else a promotion blames somebody else, and a look does not count what it has added."""
    store = Store(url=f"s3://{bucket}")
    through.troubles += [Trouble(fault, "PUT", "champions/", {0}), Trouble(fault, "PUT", "ingest/", {0})]
    first = Champion(number=0, model="a", why=Change.FIRST)
    assert promote(store, "b", first, "me", "f", {}).number == 1
    reigns = reigning(store)
    assert reigns
    assert reigns.model == "b"
    log = IngestLog(store)
    video = Video(
        source="s3://b", key="a.mp4", version="1", size_bytes=1, modified_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    entry = log.append([video])
    assert entry
    assert (entry.batch, log.batches, log.doubled) == ("00000001", ["00000001"], [])
