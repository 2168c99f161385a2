"""gs:// and az:// as stores: what can be shown without the services, on obstore's own in-memory store."""

import pickle
import subprocess
import sys

import pytest
from obstore.store import MemoryStore

from pipeline.errors import InputError, ObjectChanged, ObjectExists, ObjectMissing, ObjectTooLarge, StorageError
from pipeline.storage.cloud import CloudStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions


class InMemory(CloudStore):
    """The same code over a store that obstore keeps in memory."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__("gs", "bucket", prefix, StorageOptions())
        self.kept = MemoryStore()

    def _open(self, patience: float) -> MemoryStore:
        return self.kept


def test_objects_come_back_in_order_relative_to_the_prefix() -> None:
    store = InMemory("some/prefix/")
    for key in ["b", "a/c", "a.b", "ä"]:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == ["a.b", "a/c", "b", "ä"]
    assert [info.key for info in store.list("a")] == ["a.b", "a/c"]
    assert [info.key for info in store.list("a/")] == ["a/c"]
    for info in store.list():
        assert store.get(info.key, size=info.size, etag=info.etag) == info.key.encode()
        assert store.head(info.key) == info


def test_create_never_overwrites_and_changes_are_noticed() -> None:
    store = InMemory()
    store.create("k", b"1")
    with pytest.raises(ObjectExists):
        store.create("k", b"2")
    listed = store.head("k")
    store.put("k", b"3")
    with pytest.raises(ObjectChanged):
        store.get("k", etag=listed.etag)
    store.delete("k")
    store.delete("k")
    with pytest.raises(ObjectMissing):
        store.get("k")


def test_preflight_leaves_nothing_behind() -> None:
    store = InMemory()
    store.check_readable()
    store.check_writable()
    assert list(store.list()) == []


@pytest.mark.parametrize("key", ["", "a//b", "/a", "a/", "../a", "a\nb"])
def test_keys_that_obstore_cannot_spell_are_refused(key: str) -> None:
    with pytest.raises(StorageError, match="cannot be a key"):
        InMemory().put(key, b"")


def test_an_object_over_what_it_may_have_is_not_read() -> None:
    store = InMemory()
    store.put("k", b"123456")
    with pytest.raises(ObjectTooLarge, match=r"k has 6 bytes, over the 5 that it may have"):
        store.get("k", most_bytes=5)
    assert store.get("k", most_bytes=6) == b"123456"


@pytest.mark.parametrize("uri", ["gs://bucket", "az://container/some/prefix"])
def test_a_store_opens_again_by_its_uri(uri: str) -> None:
    store = open_store(uri + "/")
    assert store.uri == uri
    assert pickle.loads(pickle.dumps(store)).uri == uri
    assert store.at("x").uri == uri + "/x"


@pytest.mark.parametrize("uri", ["gs://", "az:///x", "gs://user:hush@bucket", "gs://bucket/x?token=hush"])
def test_odd_uris_are_refused_without_repeating_secrets(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        open_store(uri)
    assert "hush" not in str(caught.value)


def test_a_forked_process_is_refused_and_does_not_hang() -> None:
    """obstore's threads do not survive a fork."""
    script = (
        "import os\n"
        "from pipeline.errors import StorageError\n"
        "from pipeline.storage.opening import open_store\n"
        "store = open_store('gs://bucket/set')\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        store.get('a')\n"
        "    except StorageError as error:\n"
        "        print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "cannot be used in a forked process; load data with 0 workers" in done.stdout
