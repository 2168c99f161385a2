"""Part of an object, on every kind of storage."""

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipeline.errors import ObjectChanged, ObjectExists, ObjectMissing
from pipeline.storage.cloud import CloudStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions, Store
from tests.faulty_s3 import FaultyS3

HASTY = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=3, check_seconds=3)
DATA = bytes(range(256)) * 8


class InMemory(CloudStore):
    """Google's and Azure's side over a store that obstore keeps in memory."""

    def __init__(self) -> None:
        super().__init__("gs", "bucket", "", HASTY)
        self.kept = MemoryStore()

    def _open(self, patience: float) -> MemoryStore:
        return self.kept


@pytest.fixture(params=["local", "s3", "az", "cloud"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "local":
            return open_store(str(tmp_path / "root"))
        case "s3":
            return open_store(f"s3://{request.getfixturevalue('bucket')}/some/prefix", HASTY)
        case "az":
            return open_store(f"az://{request.getfixturevalue('container')}/some/prefix", HASTY)
        case _:
            return InMemory()


def test_a_range_is_these_bytes_and_no_others(store: Store) -> None:
    store.put("d/k#1+2", DATA)
    for offset, length in ((0, 1), (0, len(DATA)), (700, 300), (len(DATA) - 1, 1)):
        assert store.get_range("d/k#1+2", offset, length) == DATA[offset : offset + length]


def test_a_range_beyond_the_end_is_a_change_and_not_a_short_answer(store: Store) -> None:
    store.put("k", DATA)
    with pytest.raises(ObjectChanged):
        store.get_range("k", len(DATA) - 5, 6)
    with pytest.raises(ObjectMissing):
        store.get_range("gone", 0, 5)


def test_a_range_that_begins_beyond_the_end_is_a_change(store: Store) -> None:
    if isinstance(store, InMemory):
        pytest.skip("no service answers like this one")
    store.put("k", DATA)
    with pytest.raises(ObjectChanged):
        store.get_range("k", len(DATA) + 5, 6)


def test_keys_that_the_quick_client_cannot_spell_have_ranges_too(bucket: str) -> None:
    store = open_store(f"s3://{bucket}", HASTY)
    store.put("a//b/", DATA)
    assert store.get_range("a//b/", 700, 300) == DATA[700:1000]
    for offset in (len(DATA) - 5, len(DATA) + 5):
        with pytest.raises(ObjectChanged):
            store.get_range("a//b/", offset, 6)


def test_a_large_body_is_created_with_one_request_and_only_once(s3_endpoint: str, bucket: str) -> None:
    """A shard's tar is tens of megabytes: as an upload in parts it could not be create-only."""
    with FaultyS3(s3_endpoint) as proxy:
        store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", HASTY)
        store.create("k", DATA * 12_000)
        assert [method for method, _ in proxy.requests] == ["PUT"]
        with pytest.raises(ObjectExists):
            store.create("k", DATA * 12_001)
        assert store.head("k").size == len(DATA) * 12_000
