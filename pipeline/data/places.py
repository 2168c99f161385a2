"""Which store holds what a key of a data set means: keys below its folder, and full URIs anywhere else."""

import os
import posixpath
import re
from urllib.parse import unquote

from pipeline.data.manifest import is_full
from pipeline.errors import InputError
from pipeline.storage.store import Store, open_store

_BUCKET = re.compile(r"(?P<scheme>s3a?|gs|az)://(?P<bucket>[^/?]+)/(?P<key>.+)", re.IGNORECASE | re.DOTALL)
_OPTIONS = re.compile(r"(?P<key>.+)(?P<options>\?[A-Za-z0-9_.-]+=[^?]*)", re.DOTALL)


class Places:
    """Finds keys. `root` is the folder that relative keys are below. Can be pickled: stores are opened again.

    An s3:// URI without options of its own gets those of the root (endpoint_url, profile, region).
    """

    def __init__(self, root: Store) -> None:
        self.root = root
        self._stores: dict[str, Store] = {}

    def find(self, key: str) -> tuple[Store, str]:
        """The store and the name in it. Raises InputError for a URI that makes no sense."""
        if not is_full(key):
            return self.root, key
        bucket = _BUCKET.fullmatch(key)
        if bucket is None:
            path = unquote(key[len("file://") :]) if key.lower().startswith("file://") else key
            folder, name = posixpath.split(path)
            if not path.startswith("/") or not name:
                raise InputError(f"{key} is no file or object; write a path, file:///, s3://, gs:// or az://")
            return self._store(folder), name
        name, options = bucket["key"], ""
        if bucket["scheme"].lower().startswith("s3"):
            given = _OPTIONS.fullmatch(name)
            name, options = (given["key"], given["options"]) if given else (name, self._options_of_root())
        return self._store(f"{bucket['scheme']}://{bucket['bucket']}{options}"), name

    def _store(self, uri: str) -> Store:
        # No lock: another thread might hold it when a loader forks. A store opened twice does no harm.
        return self._stores.get(uri) or self._stores.setdefault(uri, open_store(uri))

    def _options_of_root(self) -> str:
        if self.root.location.scheme != "s3":
            return ""
        options = _OPTIONS.fullmatch(self.root.uri)
        return options["options"] if options else ""

    def __reduce__(self) -> tuple[type["Places"], tuple[Store]]:
        return Places, (self.root,)


def split_uri(uri: str) -> tuple[str, str]:
    """The folder of a file or object that a person named, as `open_store` takes it, and its name there."""
    options = _OPTIONS.fullmatch(uri) if uri.lower().startswith(("s3://", "s3a://")) else None
    place, mark = (options["key"], options["options"]) if options else (uri, "")
    folder, _, name = place.rpartition("/")
    if place.lower().startswith("file://"):
        name = unquote(name)
    return (folder or ("/" if place.startswith("/") else os.curdir)) + mark, name
