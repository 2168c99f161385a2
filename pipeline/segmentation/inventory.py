"""S3 Inventory as a key list: the manifest.json that S3 writes daily or weekly, and the data files that it names.

An inventory is of a whole bucket: what lies outside SOURCE is passed over, and of a versioned bucket all but the newest
versions. https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

import hashlib
from collections.abc import Iterator
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, ValidationError

from pipeline.errors import InputError
from pipeline.segmentation.key_lists import full_prefix, read_csv, read_parquet, with_keys
from pipeline.storage.opening import open_store, read_object
from pipeline.storage.store import Store
from pipeline.storage.uri import split_options, split_uri

_VERSIONED = {"bucket": "bucket", "islatest": "is_latest", "isdeletemarker": "is_delete_marker"}


class DataFile(BaseModel):
    """A file of an inventory."""

    key: str
    md5: str | None = Field(None, alias="MD5checksum")


class Manifest(BaseModel):
    """An inventory's manifest.json, as far as it matters here."""

    source: str = Field(alias="sourceBucket")
    destination: str = Field(alias="destinationBucket")
    format: str = Field(alias="fileFormat")
    columns: str = Field(alias="fileSchema")
    files: list[DataFile]


def is_inventory(uri: str) -> bool:
    """Whether `uri` names an inventory: they are all called manifest.json."""
    return split_uri(uri)[1] == "manifest.json"


def parse_inventory(data: bytes, uri: str) -> Manifest:
    """What the manifest.json of an inventory says. Raises InputError naming `uri` for anything else."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise InputError(
            f"key list {uri} is not the manifest of an S3 Inventory ({error.errors()[0]['msg']})"
        ) from None


def read_inventory(source: Store, uri: str) -> Iterator[pa.RecordBatch]:
    """The current objects below `source` that the inventory lists, in ENTRIES_SCHEMA, in its order.

    Raises InputError when it is of another bucket, or of a kind that is not read here.
    """
    manifest = parse_inventory(read_object(uri), uri)
    place = source.location
    if place.scheme != "s3" or place.folders[:1] != (manifest.source,):
        raise InputError(f"{uri} is an inventory of s3://{manifest.source}, not of the source {source.uri}")
    if manifest.format not in ("CSV", "Parquet"):
        raise InputError(
            f"{uri} is an inventory in the format {manifest.format}, which is not read here; configure CSV or Parquet"
        )
    # It is on the service that the manifest came from.
    options = split_options(uri)[1] or split_options(source.uri)[1]
    data = open_store(f"s3://{manifest.destination.removeprefix('arn:aws:s3:::')}{options}")
    for file in manifest.files:
        content = data.get(file.key)
        if file.md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != file.md5:
            raise InputError(f"{data.uri}: {file.key} is not the file that {uri} was made with (MD5); take another one")
        if manifest.format == "CSV":
            header = [name.strip() for name in manifest.columns.split(",")]
            batches = read_csv(file.key, content, packed=file.key.endswith(".gz"), header=header, more=_VERSIONED)
        else:
            batches = read_parquet(file.key, content, _VERSIONED)
        for batch in batches:
            yield _below(source, batch, encoded=manifest.format == "CSV")


def _below(source: Store, batch: pa.RecordBatch, *, encoded: bool) -> pa.RecordBatch:
    """The current objects below the source, by their keys in there."""
    names = batch.schema.names
    if "is_latest" in names:
        batch = batch.filter(pc.equal(_boolean(batch["is_latest"]), True))
    if "is_delete_marker" in names:
        batch = batch.filter(pc.invert(pc.fill_null(_boolean(batch["is_delete_marker"]), False)))
    keys = [unquote_plus(key) for key in batch["key"].to_pylist()] if encoded else batch["key"].to_pylist()
    root = full_prefix(source).removeprefix(f"s3://{source.location.folders[0]}/")
    inside = pa.array([len(key) > len(root) and key.startswith(root) for key in keys], pa.bool_())
    keys = [key[len(root) :] for key, wanted in zip(keys, inside.to_pylist(), strict=True) if wanted]
    return with_keys(batch.filter(inside), keys)


def _boolean(column: pa.Array) -> pa.Array:
    return column if pa.types.is_boolean(column.type) else pc.equal(pc.ascii_lower(column), "true")
