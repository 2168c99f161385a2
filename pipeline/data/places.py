"""Which store holds what a key of a data set means: keys below its folder, and full URIs anywhere else."""

import posixpath
import re
from urllib.parse import unquote

from pipeline.errors import InputError
from pipeline.sources.lookup import above_containers
from pipeline.sources.source import Source
from pipeline.storage.opening import STORES, open_store
from pipeline.storage.store import Store
from pipeline.storage.uri import is_absolute, split_options

_SCHEMES = "|".join(scheme for scheme in STORES if scheme != "file")
_BUCKET = re.compile(rf"(?P<scheme>{_SCHEMES})://(?P<bucket>[^/?]+)/(?P<key>.+)", re.IGNORECASE | re.DOTALL)


class KeyResolver:
    """Finds keys. `root` is the folder that relative keys are below. Can be pickled: stores are opened again.

    An s3:// URI without options of its own gets those of the root (endpoint_url, profile, region).
    """

    def __init__(self, root: Store) -> None:
        self.root = root
        self._stores: dict[str, Store] = {}

    def find(self, key: str) -> tuple[Store, str]:
        """The store and the name in it. Raises InputError for a URI that makes no sense."""
        if not is_absolute(key):
            return self.root, key
        bucket = _BUCKET.fullmatch(key)
        if bucket is None:
            path = unquote(key[len("file://") :]) if key.lower().startswith("file://") else key
            folder, name = posixpath.split(path)
            if not path.startswith("/") or not name:
                raise InputError(f"{key} is no file or object; write a path, file:///, s3://, gs:// or az://")
            folder, name = above_containers(folder, name)
            return self._store(folder), name
        name = bucket["key"]
        _, options = split_options(key)
        if options and name != options:  # no object is called ""
            name = name.removesuffix(options)
        elif bucket["scheme"].lower().startswith("s3"):
            _, options = split_options(self.root.uri)
        return self._store(f"{bucket['scheme']}://{bucket['bucket']}{options}"), name

    def _store(self, uri: str) -> Store:
        # No lock: another thread might hold it when a loader forks. A store opened twice does no harm.
        return self._stores.get(uri) or self._stores.setdefault(uri, Source(open_store(uri)))

    def __reduce__(self) -> tuple[type["KeyResolver"], tuple[Store]]:
        return KeyResolver, (self.root,)
