"""Other programs read `results/` while a run is writing: whole shards, and never a half-written file.

What they do is what docs/results.md says under "While a run is writing".
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pytest

from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.storage import durable
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

RUNS = ("20260101T000000Z-0001", "20260102T000000Z-0001")
SHARD = 3


def rows_of(shard: int) -> list[ResultRow]:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        ResultRow(f"{shard}/{number}.jpg", "e", 1, when, "error", "m", "p", error="truncated")
        for number in range(SHARD)
    ]


def write(store: Store) -> Iterator[set[str]]:
    """Commits one shard after the other; yields the keys that are there."""
    there: set[str] = set()
    for shard in range(4):
        commit_shard(store, RUNS[shard // 2], shard % 2, rows_of(shard))
        there |= {row.key for row in rows_of(shard)}
        yield there


def by_duckdb(folder: str) -> list[str]:
    sql = f"SELECT key FROM read_parquet('{folder}/results/*/*.parquet', hive_partitioning = true)"
    return [key for (key,) in duckdb.sql(sql).fetchall()]


def by_polars(folder: str) -> list[str]:
    return list(pl.scan_parquet(f"{folder}/results/*/*.parquet", hive_partitioning=True).collect()["key"])


def by_pandas(folder: str) -> list[str]:
    return list(pd.read_parquet(f"{folder}/results").key)


def by_pyarrow(folder: str) -> list[str]:
    return list(pads.dataset(f"{folder}/results", partitioning="hive").to_table()["key"].to_pylist())


def by_sparks_rules(folder: str) -> list[str]:
    """Spark's: below a folder, every file that begins with neither "." nor "_" is of the table, and every folder is
    `name=value`, of names that no file has for a column."""
    files = [path for path in Path(folder, "results").rglob("*") if path.is_file() and path.name[0] not in "._"]
    base = f"{folder}/results"
    dataset = pads.dataset([str(path) for path in files], partitioning="hive", partition_base_dir=base)
    table = dataset.to_table()
    assert all(path.parent.name == f"run_id={path.parent.name.partition('=')[2]}" for path in files)
    assert set(table["run_id"].to_pylist()) <= set(RUNS)
    assert all("run_id" not in pads.dataset(str(path)).schema.names for path in files)
    return list(table["key"].to_pylist())


READERS: list[Callable[[str], list[str]]] = [by_duckdb, by_polars, by_pandas, by_pyarrow, by_sparks_rules]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_file_that_is_being_written_to_a_folder_is_read_by_nobody(
    read: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: set[str] = set()
    looks = 0

    def half(file: FileIO, data: bytes) -> None:
        nonlocal looks
        middle = len(data) // 2
        file.write(data[:middle])
        if there:  # the first of all files has no table to stand beside
            looks += 1
            assert set(read(str(tmp_path))) >= there
        file.write(data[middle:])

    monkeypatch.setattr(durable, "_write_all", half)
    for there in write(open_store(str(tmp_path))):
        assert sorted(read(str(tmp_path))) == sorted(there)
    assert looks >= 6


def test_readers_of_s3_see_whole_shards(bucket: str, s3_endpoint: str) -> None:
    """S3 shows an object when all of it has arrived; a shard is one PUT."""
    store = open_store(f"s3://{bucket}/labels")
    scheme, _, host = s3_endpoint.partition("://")
    arrow = pafs.S3FileSystem(endpoint_override=host, scheme=scheme, region="us-east-1")
    options = {"aws_endpoint_url": s3_endpoint, "aws_allow_http": "true", "aws_region": "us-east-1"}
    where: Any = f"{bucket}/labels/results"
    for there in write(store):
        dataset = pads.dataset(where, filesystem=arrow, partitioning="hive")
        pandas = pd.read_parquet(where, filesystem=arrow)
        polars = pl.scan_parquet(f"s3://{where}/*/*.parquet", hive_partitioning=True, storage_options=options).collect()
        with open_tables(store) as tables:
            asked = run_query(tables, "SELECT key FROM results").read_all()
        for keys in (dataset.to_table()["key"].to_pylist(), pandas.key, polars["key"], asked["key"].to_pylist()):
            assert sorted(keys) == sorted(there)
