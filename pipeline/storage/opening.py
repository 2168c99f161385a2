"""A store or an object by its URI: `open_store("s3://bucket/images")`, a local folder, `gs://` or `az://`.

To add a kind of storage, write a module with a class that has `from_uri(uri, options)` and is a
`pipeline.storage.store.Store`, and give its scheme a line in `STORES`.
"""

from importlib import import_module
from typing import cast

from pipeline.errors import InputError
from pipeline.storage.store import StorageOptions, Store
from pipeline.storage.uri import scheme_of, split_uri

STORES = {
    "file": "pipeline.storage.local:LocalStore",
    "s3": "pipeline.storage.s3:S3Store",
    "s3a": "pipeline.storage.s3:S3Store",
    "gs": "pipeline.storage.cloud:CloudStore",
    "az": "pipeline.storage.cloud:CloudStore",
}
"""The class of each scheme. Imported when first used: a laptop that reads a folder need not load boto3."""

USUAL = StorageOptions()
"""How patient a store is for whoever asks for nothing else."""


def open_store(uri: str, options: StorageOptions | None = None) -> Store:
    """Open the storage that `uri` names: `s3://`, `gs://`, `az://`, `file://`, or a path to a local folder.

    Opening sends no request; `check_readable` and `check_writable` do. An `s3://` URI may end in
    `?endpoint_url=...&profile=...&region=...`, so that a source and an output can be on different services.

    Raises InputError if the URI makes no sense.
    """
    if not uri or "\0" in uri:
        raise InputError(f"{uri!r} names no storage; give a path, file://, s3://, gs:// or az://.")
    scheme = scheme_of(uri)
    if scheme not in STORES:
        raise InputError(f"{scheme}:// is no kind of storage known here; use a path, file://, s3://, gs:// or az://.")
    module, _, name = STORES[scheme].partition(":")
    return cast(Store, getattr(import_module(module), name).from_uri(uri, options or USUAL))


def read_object(uri: str) -> bytes:
    """The bytes of one file or object. Raises StorageError or InputError."""
    folder, name = split_uri(uri)
    return open_store(folder).get(name)
