"""`fcn verify` finds nothing in a sound output, and names whatever was tampered with."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fcn_core import preset
from fcn_core.labels import decode_mask, encode_mask
from pipeline.cli.app import run as fcn
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.compact import compact
from pipeline.outputs.index import INDEX_SCHEMA
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import to_parquet
from pipeline.outputs.verify import Verified, verify
from pipeline.outputs.verify_index import verify_index
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.in_process import segment_in_process
from tests.labellings import striped, write_run
from tests.samples import fill


@pytest.fixture(scope="module")
def sound(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two shards with an unreadable image."""
    folder = tmp_path_factory.mktemp("verify")
    fill(folder / "photos", 5)
    (folder / "photos" / "bad.jpg").write_bytes(b"no")
    job = SegmentJob(
        source=str(folder / "photos"), output=str(folder / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1, engine="torch", shard_size=3,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        segment(job)
    return folder / "labels"


@pytest.fixture
def output(sound: Path, tmp_path: Path) -> Store:
    """A copy to tamper with."""
    copy = open_store(str(tmp_path / "labels"))
    original = open_store(str(sound))
    for info in original.list():
        copy.put(info.key, original.get(info.key))
    return copy


def first(store: Store, prefix: str) -> str:
    return next(iter(store.list(prefix))).key


def test_a_sound_output_has_no_findings(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    checked = Verified()
    assert list(verify(output, checked)) == []
    assert checked == Verified(runs=1, rows=6, masks=5)
    assert fcn(["verify", output.uri]) == 0
    assert "5 masks" in capsys.readouterr().out


def other_mask(store: Store) -> str:
    key = first(store, "masks/")
    store.put(key, encode_mask(np.zeros((72, 96), np.uint8), preset("camvid")))
    return key


def swapped_pixels(store: Store) -> str:
    """A mask of the same areas, in other places."""
    key = first(store, "masks/")
    store.put(key, encode_mask(np.ascontiguousarray(decode_mask(store.get(key))[::-1, ::-1]), preset("camvid")))
    return key


def lost(prefix: str) -> Callable[[Store], str]:
    def tamper(store: Store) -> str:
        key = first(store, prefix)
        store.delete(key)
        return key

    return tamper


def swapped(prefix: str) -> Callable[[Store], str]:
    """One shard's file under another's name."""

    def tamper(store: Store) -> str:
        one, two = [info.key for info in store.list(prefix)][:2]
        store.put(one, store.get(two))
        return one

    return tamper


def scribbled(store: Store) -> str:
    key = first(store, "class_totals/")
    store.put(key, b"PAR1")
    return key


@pytest.mark.parametrize(
    "tamper",
    [other_mask, swapped_pixels, lost("masks/"), lost("class_areas/"), lost("class_totals/"), swapped("class_areas/"),
     swapped("results/"), scribbled],
)  # fmt: skip
def test_what_was_tampered_with_is_named(
    output: Store, tamper: Callable[[Store], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tamper(output)
    assert file in {finding.file for finding in verify(output, Verified())}
    assert fcn(["verify", output.uri, "--json"]) == 1
    assert file in {finding["file"] for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_a_lost_results_file_of_a_finished_run_is_noticed(output: Store) -> None:
    output.delete(first(output, "results/"))
    assert any("shards [0] are not committed" in finding.problem for finding in verify(output, Verified()))


def compacted(output: Store) -> str:
    """Two more runs, and an index of all; returns its id."""
    write_run(output, "20260101T000000Z-aaaa", dict.fromkeys("abcdef", striped(1, 2)))
    write_run(output, "20260102T000000Z-bbbb", dict.fromkeys("abc", striped(1)) | {"d": "truncated"})
    made = compact(output)
    assert made is not None
    return made.id


def test_an_index_of_what_is_committed_has_no_findings(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    compacted(output)
    write_run(output, "20260103T000000Z-cccc", {"late": striped(1)})
    assert list(verify_index(output)) == []


def without_a_row(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


def with_another_error(rows: pa.Table) -> pa.Table:
    column = pa.array([None] * len(rows), pa.string())
    return rows.set_column(rows.schema.get_field_index("error"), INDEX_SCHEMA.field("error"), column)


def with_another_etag(rows: pa.Table) -> pa.Table:
    column = pa.array(["other", *rows["etag"].to_pylist()[1:]], pa.string())
    return rows.set_column(rows.schema.get_field_index("etag"), INDEX_SCHEMA.field("etag"), column)


def upside_down(rows: pa.Table) -> pa.Table:
    return rows.take(list(reversed(range(len(rows)))))


@pytest.mark.parametrize("change", [without_a_row, with_another_error, with_another_etag, upside_down])
def test_an_index_that_says_other_than_the_results_is_named(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    output = open_store(str(tmp_path))
    index_id = compacted(output)
    part = next(info.key for info in output.list(f"index/{index_id}/") if "part-" in info.key)
    output.put(part, to_parquet(change(read_table(output.get(part), part))))
    assert any(file.startswith(f"index/{index_id}") for file, _ in verify_index(output))
    assert any(finding.file.startswith(f"index/{index_id}") for finding in verify(output, Verified()))


def test_results_that_only_the_index_still_has_are_named(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    compacted(output)
    lost = first(output, "results/run_id=20260102")
    output.delete(lost)
    assert [file for file, _ in verify_index(output)] == [lost]


def test_a_results_file_that_is_no_table_does_not_hide_the_rest(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    compacted(output)
    damaged = first(output, "results/run_id=20260102")
    output.put(damaged, b"PAR1")
    output.delete(first(output, "class_areas/run_id=20260101"))
    found = list(verify(output, Verified()))
    assert any(each.file == damaged and "not a readable Parquet file" in each.problem for each in found)
    assert "class_areas/run_id=20260101T000000Z-aaaa/shard-00000000.parquet" in {each.file for each in found}


def test_runs_whose_record_is_lost_or_damaged_are_named(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    compacted(output)
    output.delete("runs/20260101T000000Z-aaaa/run.json")
    output.put("runs/20260102T000000Z-bbbb/run.json", b"{}")
    assert {finding.file for finding in verify(output, Verified())} == {
        "results/run_id=20260101T000000Z-aaaa",
        "runs/20260102T000000Z-bbbb/run.json",
    }
