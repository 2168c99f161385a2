"""az:// and gs:// as stores and as a job's source and output, against services that answer their requests."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, ObjectChanged, ObjectExists, ObjectMissing, StorageError
from pipeline.outputs.verify import Verified, verify
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions
from tests.samples import jpeg

HASTY = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=3, check_seconds=3)
NAMES = ["a", "b/c", "b.c", "ä/😀.jpg", "name#1?.jpg", "with space", "100%25.jpg", "k" * 200]


def test_objects_come_back_in_order_with_their_bytes(cloud: str) -> None:
    store = open_store(f"{cloud}/some/prefix", HASTY)
    store.check_readable()
    store.check_writable()
    for name in NAMES:
        store.put(name, name.encode())
    listed = list(store.list())
    assert [info.key for info in listed] == sorted(NAMES, key=str.encode)
    for info in listed:
        assert store.get(info.key, size=info.size, etag=info.etag) == info.key.encode()
        assert store.head(info.key) == info
    assert [info.key for info in store.list("b/")] == ["b/c"]
    for name in NAMES:
        store.delete(name)
        store.delete(name)
    assert list(store.list()) == []


def test_changes_and_absence_are_noticed(cloud: str) -> None:
    store = open_store(cloud, HASTY)
    store.put("k", b"1")
    listed = store.head("k")
    store.put("k", b"2")
    with pytest.raises(ObjectChanged):
        store.get("k", size=1, etag=listed.etag)
    store.delete("k")
    with pytest.raises(ObjectMissing):
        store.get("k")
    with pytest.raises(ObjectMissing):
        store.head("k")


def test_of_many_creators_one_wins(cloud: str) -> None:
    store, won = open_store(cloud, HASTY), []

    def create(number: int) -> None:
        try:
            store.create("k", b"%d" % number)
        except ObjectExists:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("k") == b"%d" % won[0]


def test_a_bucket_that_is_not_there_is_named(cloud: str) -> None:
    absent = f"{cloud.partition('://')[0]}://absent-container"
    with pytest.raises(StorageError, match="no such"):
        open_store(absent, HASTY).check_readable()


def test_a_range_is_those_bytes_and_one_beyond_the_end_is_an_error(cloud: str) -> None:
    store = open_store(cloud, HASTY)
    store.put("k", b"0123456789")
    assert store.get_range("k", 3, 4) == b"3456"
    with pytest.raises(StorageError):
        store.get_range("k", 8, 4)


def test_a_wrong_key_of_azures_is_refused_and_not_repeated(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.raises(AccessDenied) as caught:
        open_store(f"az://{container}", HASTY).check_readable()
    assert "d3Jvbmc" not in str(caught.value)


def test_without_credentials_the_message_names_what_to_set(google: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_SERVICE_ACCOUNT_KEY")
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, "127.0.0.1:9")
    monkeypatch.setenv("HOME", "/nonexistent")  # where gcloud keeps its own
    with pytest.raises(AccessDenied, match="set GOOGLE_APPLICATION_CREDENTIALS"):
        open_store("gs://bucket", HASTY).check_readable()


def test_a_bucket_is_segmented(cloud: str, model_dir: Path) -> None:
    """The whole job in a process of its own, whose actors find the account as it does; then there is nothing to do."""
    photos, labels = open_store(f"{cloud}/photos"), open_store(f"{cloud}/labels")
    for index in range(6):
        photos.put(f"cam/{index}.jpg", jpeg(60, 40, seed=index))
    options = ["--model", str(model_dir), "--device", "cpu", "--cpus-per-actor", "1", "--actors", "1", "--json"]
    script = "from pipeline.cli.app import run; import sys; sys.exit(run(sys.argv[1:]) or run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "segment", photos.uri, labels.uri, *options],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(done.stdout)
    second, _ = decoder.raw_decode(done.stdout[end:].lstrip())
    assert (first["ok"], second["images"], second["already_done"]) == (6, 0, 6)
    assert list(verify(labels, Verified())) == []
