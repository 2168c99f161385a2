"""The files of a data set, read by key from wherever they are, proven to be the ones that were listed."""

import hashlib
from collections.abc import Mapping

from pipeline.data.places import KeyResolver
from pipeline.data.versioned.versions import digest_of
from pipeline.errors import ObjectChanged, ObjectMissing
from pipeline.storage.file_cache import FileCache
from pipeline.storage.store import ObjectInfo


class StoredFiles:
    """Reads the files of a data set by key, through the cache if there is one. Can be pickled.

    Of `known` files the bytes are proven to be the ones that were listed. Raises FileNotFoundError for a file that is
    not there, and StorageError for other trouble, such as a file of a version that is not what it was.
    """

    def __init__(self, places: KeyResolver, known: Mapping[str, ObjectInfo], cache: FileCache | None) -> None:
        self.places = places
        self.known = {key: (info.etag, info.size) for key, info in known.items()}
        self.cache = cache

    def __call__(self, key: str) -> bytes:
        data = self._read(key)
        promised = digest_of(key)
        if promised is not None and hashlib.sha256(data).hexdigest() != promised:
            raise ObjectChanged(f"{key} is not what it was when its version was made; restore the file")
        return data

    def _read(self, key: str) -> bytes:
        store, name = self.places.find(key)
        etag, size = self.known.get(key, (None, None))
        try:
            if self.cache is None or etag is None:
                return store.get(name, size=size, etag=etag)
            identity = "\0".join((store.uri, name, etag, str(size)))
            return self.cache.get(identity, lambda: store.get(name, size=size, etag=etag))
        except ObjectMissing as error:
            raise FileNotFoundError(str(error)) from error
