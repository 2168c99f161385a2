"""What images look like to the model, beside the results of a shard: written on demand, for `fcn rank --diverse`.

The one thing to know: nothing depends on them. They are written before the shard is committed, so a committed shard of
a run with features has them; a row that only repeats an earlier one has its features with that one.
"""

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ObjectExists, StorageError
from pipeline.outputs.results import READS_AT_ONCE, read_table, shard_key, shard_number
from pipeline.outputs.seal import to_parquet
from pipeline.parallel import in_parallel
from pipeline.storage.store import ObjectInfo, Store

FOLDER = "features"

NUMBERS = 128
"""Of an image, as many as `fcn_core.inference.features` gives; here, too, for who reads them needs no PyTorch."""

FEATURES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("features", pa.list_(pa.float16(), NUMBERS), nullable=False),
    ],
    metadata={"fcn_schema": "features/1"},
)
"""One row per image that has a mask. `features` are `fcn_core.inference.features`: comparable within one model."""

Features = npt.NDArray[np.float16]


def write_features(
    store: Store, run_id: str, shard: int, model_id: str, rows: Sequence[tuple[str, str, Features]]
) -> None:
    """Write those of a shard, (key, etag, float16 [NUMBERS]) each, create-only."""
    values = np.concatenate([features for _, _, features in rows]) if rows else np.empty(0, np.float16)
    table = pa.table(
        [
            pa.array([key for key, _, _ in rows], pa.string()),
            pa.array([etag for _, etag, _ in rows], pa.string()),
            pa.repeat(pa.scalar(model_id, pa.string()), len(rows)),
            pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float16()), NUMBERS),
        ],
        schema=FEATURES_SCHEMA,
    )
    with contextlib.suppress(ObjectExists):
        store.create(shard_key(FOLDER, run_id, shard), to_parquet(table))


def read_features(store: Store, model_id: str, images: Mapping[str, str]) -> dict[str, Features]:
    """The features by `model_id` of `images`, etags by key, as far as there are any: float16 [NUMBERS] by key.

    Reads the files of newer runs first, and stops when it has found all. Memory: some files, and what is found.
    """
    found: dict[str, Features] = {}
    infos = (info for info in store.list(f"{FOLDER}/") if shard_number(info.key) is not None)
    by_run: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
    for info in infos:
        by_run[info.key.split("/")[1]].append(info)
    for run in sorted(by_run, reverse=True):
        wanted = images.keys() - found.keys()
        if not wanted:
            break
        for key, etag, features in _of(store, by_run[run], model_id, wanted):
            if images[key] == etag:
                found.setdefault(key, features)
    return found


def _of(
    store: Store, infos: Sequence[ObjectInfo], model_id: str, keys: Collection[str]
) -> Iterator[tuple[str, str, Features]]:
    """The rows about `keys` in some files."""
    wanted = pa.array(sorted(keys), pa.string())

    def read(info: ObjectInfo) -> pa.Table:
        table = read_table(store.get(info.key, size=info.size, etag=info.etag), info.key, FEATURES_SCHEMA.names)
        if table.schema.field("features").type != FEATURES_SCHEMA.field("features").type:
            raise StorageError(f"{info.key} does not hold {NUMBERS} features an image; remove it")
        of_model = pc.and_(pc.is_in(table["key"], value_set=wanted), pc.equal(table["model_id"], model_id))
        return table.filter(of_model)

    for table in in_parallel(read, iter(infos), threads=READS_AT_ONCE, name="features"):
        rows = table.combine_chunks()
        if len(rows):
            values = rows["features"].chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, NUMBERS)
            yield from zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), values, strict=True)
