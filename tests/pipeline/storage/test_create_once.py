"""Create-only writes on file systems without hard links, or whose answers get lost."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ObjectExists, StorageError, StorageUnavailable
from pipeline.storage import create_once as creations
from pipeline.storage.opening import open_store
from pipeline.storage.store import create_or_read


def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on vfat and exFAT."""

    def link(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)


def test_without_hard_links_a_file_is_created_once_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_links(monkeypatch)
    store = open_store(str(tmp_path / "output"))
    store.check_writable()
    store.create("a/b", b"mine")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"theirs")
    assert store.get("a/b") == b"mine"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"], "nothing is left aside"


def test_where_nothing_can_be_created_once_one_sentence_says_so_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_links(monkeypatch)

    def rename(written: bytes, path: bytes) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(creations, "_rename_once", rename)
    with pytest.raises(StorageError, match="neither hard links nor a rename that replaces nothing"):
        open_store(str(tmp_path / "output")).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_is_no_object_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks again for what it was not answered, and then hears that it is there."""
    real = os.link

    def link(source: bytes, target: bytes) -> None:
        real(source, target)
        real(source, target)

    store = open_store(str(tmp_path))
    with monkeypatch.context() as lossy:
        lossy.setattr(os, "link", link)
        store.create("a", b"mine")
        with pytest.raises(ObjectExists):
            store.create("a", b"theirs")
    assert store.get("a") == b"mine"


def test_a_file_system_that_syncs_no_folders_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = open_store(str(tmp_path / "output"))
    store.check_writable()
    store.create("a/b", b"x")
    assert store.get("a/b") == b"x"


def test_an_object_that_goes_between_two_answers_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create-only write found it, and when it was to be read somebody had deleted it: that ended the run."""
    store = open_store(str(tmp_path))
    store.put("a", b"theirs")
    create = store.create

    def meets_a_deletion(key: str, data: bytes) -> None:
        try:
            create(key, data)
        except ObjectExists:
            store.delete(key)
            raise

    monkeypatch.setattr(store, "create", meets_a_deletion)
    assert create_or_read(store, "a", b"mine") == b"mine"
    monkeypatch.setattr(store, "create", create)
    assert create_or_read(store, "a", b"late") == b"mine"

    def never(key: str, data: bytes) -> None:
        raise ObjectExists(key)

    monkeypatch.setattr(store, "create", never)
    with pytest.raises(StorageUnavailable, match="b is there and is not"):
        create_or_read(store, "b", b"mine")
