"""A store as a file system that DuckDB can read from: no extension to download, our own credentials and retries."""

import fnmatch
import io
from collections import OrderedDict
from datetime import datetime
from threading import Lock
from typing import Any

import fsspec

from pipeline.storage.store import ObjectInfo, Store

PROTOCOL = "fcn"
ROOT = f"{PROTOCOL}://output"
"""Where a registered store's files are: fcn://output/<key>."""

KEPT_BYTES = 256 << 20


class StoreFiles(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Reads whole objects: result files are small. One listing and one download of a file serve one query; beyond
    KEPT_BYTES the oldest downloads are forgotten and fetched again if need be. Safe to share between threads.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._listed: dict[str, list[ObjectInfo]] = {}
        self._infos: dict[str, ObjectInfo] = {}
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> list[str]:
        pattern = _key(path)
        folder = pattern.partition("*")[0]
        with self._lock:
            if folder not in self._listed:
                self._listed[folder] = list(self._store.list(folder))
                self._infos |= {info.key: info for info in self._listed[folder]}
            found = [info.key for info in self._listed[folder]]
        return [f"{ROOT}/{key}" for key in found if _matches(key, pattern)]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found = self._find(_key(path))
        return {"name": path, "size": found.size, "type": "file"}

    def modified(self, path: str) -> datetime:
        return self._find(_key(path)).last_modified

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        if mode != "rb":
            raise PermissionError(f"{path} is opened to be read only")
        found = self._find(_key(path))
        with self._lock:
            data = self._files.get(found.key)
        if data is None:
            data = self._store.get(found.key, size=found.size)
            with self._lock:
                self._files[found.key] = data
                while sum(map(len, self._files.values())) > KEPT_BYTES and len(self._files) > 1:
                    self._files.popitem(last=False)
        return io.BytesIO(data)

    def _find(self, key: str) -> ObjectInfo:
        with self._lock:
            found = self._infos.get(key)
        return found or self._store.head(key)


def _key(path: str) -> str:
    return path.removeprefix(f"{PROTOCOL}://").removeprefix("output/")


def _matches(key: str, pattern: str) -> bool:
    """Like a shell: a star does not cross a slash."""
    parts, wanted = key.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
