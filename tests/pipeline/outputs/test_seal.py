"""A file with a checksum is what was written, to the last byte; one of 0.1, which has none, is taken as it is."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StorageError
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import BrokenSeal, check_json, check_parquet, to_json, to_parquet

HOSTILE = "fcn_sha256\x18\x40" + "0" * 64 + "fcn_sealed"
"""A key, which ends up in a file's statistics, that looks like a checksum."""


def table(*keys: str) -> pa.Table:
    return pa.table({"key": list(keys)}, schema=pa.schema([("key", pa.string())], metadata={"fcn_schema": "results/1"}))


@pytest.mark.parametrize("keys", [(), ("a.jpg", "b.jpg"), (HOSTILE, f'"{HOSTILE}": "')])
def test_equal_tables_give_equal_bytes_and_read_back(keys: tuple[str, ...]) -> None:
    data = to_parquet(table(*keys))
    assert to_parquet(table(*keys)) == data
    check_parquet(data)
    found = pq.read_table(io.BytesIO(data))
    assert found["key"].to_pylist() == list(keys)
    assert found.schema.equals(table().schema, check_metadata=True), "readers see no more columns or metadata"


def test_every_flipped_bit_of_a_table_is_noticed() -> None:
    """The checksum's own place and its two names included, and the statistics that a query engine relies on."""
    data = to_parquet(table("a.jpg", HOSTILE))
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(StorageError, match=r"results/x\.parquet is (damaged|not a readable Parquet file)"):
            read_table(bytes(damaged), "results/x.parquet")


def test_every_flipped_bit_of_a_record_is_noticed() -> None:
    data = to_json(json.dumps({"run_id": "a", "job": {"source": f'"{HOSTILE}": "'}}, indent=2))
    check_json(data)
    assert json.loads(data)["run_id"] == "a"
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises((BrokenSeal, ValueError)):
            check_json(bytes(damaged))


def test_files_of_0_1_have_no_checksum_whatever_their_keys_say() -> None:
    sink = io.BytesIO()
    pq.write_table(table(HOSTILE), sink)
    check_parquet(sink.getvalue())
    check_json(json.dumps({"job": {"source": HOSTILE}}).encode())
