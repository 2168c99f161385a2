"""`fcn gc` removes what nothing refers to, and nothing else: whatever is committed, or will be asked for, stays."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.app import run as fcn
from pipeline.errors import InputError, PipelineError, StorageError
from pipeline.outputs.gc import collect, leftovers
from pipeline.outputs.identity import Recipe
from pipeline.outputs.lease import Lease
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.plan import write_plan
from pipeline.outputs.results import read_results, read_table, result_runs, shard_key
from pipeline.outputs.runs import read_record, write_record
from pipeline.outputs.verify import Verified, verify
from pipeline.storage.batches import to_batches
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.faulty_s3 import FaultyS3
from tests.labellings import WHEN, striped, write_run

NOW = timedelta(0)
NEVER, GONE = "20251231T000000Z-0000", "20251231T000000Z-ffff"
"""Runs that are no more."""
SHARD = 4


@pytest.fixture(params=["folder", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "labels"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/labels")


def run(
    store: Store, run_id: str, keys: list[str], *, lost: set[int] | None = None,
    state: Literal["finished", "interrupted"] = "finished", job: str = "0",
) -> Recipe:  # fmt: skip
    """A planned run over `keys`, four a shard, that has written all masks; shards in `lost` are not committed."""
    write_run(store, run_id, dict.fromkeys(keys, striped(1, 2)), shard_size=SHARD)
    write_plan(store, run_id, to_batches(ObjectInfo(key, "e", 1000, WHEN) for key in keys), SHARD)
    for number in lost or ():
        store.delete(shard_key("results", run_id, number))
        store.delete(shard_key("class_areas", run_id, number))
    record = read_record(store, run_id)
    write_record(store, record.model_copy(update={"state": state, "job_digest": job}))
    return Recipe(record.model_id, record.params_id)


def names(count: int, start: int = 0) -> list[str]:
    return [f"{index:03d}.jpg" for index in range(start, start + count)]


def litter(store: Store, recipe: Recipe) -> set[str]:
    """What dead shards, plans and drivers leave."""
    stray = {
        mask_key(recipe, "dead.jpg", "e"),
        mask_key(recipe, "000.jpg", "an older version"),
        mask_key(recipe, "../\n" * 60, "e"),
        f"class_areas/run_id={GONE}/shard-00000000.parquet",
        "class_areas/run_id=20260101T000000Z-aaaa/shard-00000099.parquet",
        "features/run_id=20260101T000000Z-aaaa/shard-00000099.parquet",
        f"class_totals/run_id={GONE}.parquet",
        f"runs/{NEVER}/plan/part-00000.parquet",
        f"runs/{NEVER}/progress.json",
        f"runs/{NEVER}/where.txt",
        f"runs/{GONE}/plan/plan.json",
        f"reports/{GONE}/index.html",
        "lease/00000001.json",
        "lease/00000001.heartbeat",
        f".fcn-check-{'0' * 32}",
    }
    for key in stray:
        store.put(key, b"x")
    store.put("lease/00000002.json", b'{"host": "h", "pid": 1, "machine": "m", "started": "", "since": ""}')
    store.put("lease/00000002.heartbeat", b"released")
    return stray


def bystanders(store: Store) -> set[str]:
    """Files that no job writes."""
    other = {
        "notes.txt",
        "masks/README.md",
        "masks/deadbeef/a.jpg.00000000.png",
        "masks/x/y.png",
        f"runs/{NEVER}/mine.txt",
        f"reports/{GONE}/picture.png",
        "reports/monthly/index.html",
        "runs/monthly/plan/plan.json",
        "class_areas/run_id=monthly/shard-00000000.parquet",
        "class_totals/run_id=monthly.parquet",
        "lease/mine",
        "results/notes.txt",
        ".fcn-check-mine",
    }
    for key in other:
        store.put(key, b"x")
    return other


def everything(store: Store) -> set[str]:
    return {info.key for info in store.list()}


def test_what_nothing_refers_to_goes_and_all_else_stays(output: Store) -> None:
    recipe = run(output, "20260101T000000Z-aaaa", names(6))
    before = everything(output) | bystanders(output)
    stray = litter(output, recipe)
    assert {leftover.key for leftover in leftovers(output, NOW)} == stray
    assert everything(output) >= stray  # looking changes nothing
    found = collect(output, NOW, delete=True)
    assert (found.files, found.bytes) >= (len(stray), len(stray))  # and the lease before gc's own
    left = everything(output)
    assert left >= before
    claims = {f"{folder}/claim.json" for key in stray if (folder := key.partition("/plan/")[0]) != key}
    assert {key for key in left - before if not key.startswith("lease/")} == {"gc/00000001.json"} | claims
    assert list(verify(output, Verified())) == []


def test_masks_of_an_unfinished_run_are_kept_for_as_long_as_it_could_commit(output: Store) -> None:
    recipe = run(output, "20260101T000000Z-aaaa", names(8), lost={1}, state="interrupted")
    waiting = {mask_key(recipe, key, "e") for key in names(4, start=4)}
    assert list(leftovers(output, NOW)) == []
    # The same job, begun afresh and finished: an actor of the other one may still be slow.
    run(output, "20260102T000000Z-bbbb", names(4), job="0")
    assert list(leftovers(output, NOW)) == []
    for folder in ("results/run_id=", "class_areas/run_id=", "runs/"):
        for info in list(output.list(f"{folder}20260101T000000Z-aaaa/")):
            output.delete(info.key)
    assert {leftover.key for leftover in leftovers(output, NOW) if leftover.kind == "masks"} == waiting


def test_masks_of_a_plan_that_is_no_run_yet_are_kept(output: Store) -> None:
    recipe = run(output, "20260101T000000Z-aaaa", names(2))
    output.put(mask_key(recipe, "late.jpg", "e"), b"x")
    write_plan(output, "20260102T000000Z-bbbb", to_batches([ObjectInfo("late.jpg", "e", 1, WHEN)]), SHARD)
    assert {leftover.kind for leftover in leftovers(output, NOW)} == {"plans"}


@pytest.mark.parametrize("lost", ["plan.json", "part-00000.parquet"])
def test_an_unfinished_run_without_its_whole_plan_leaves_nothing_over(tmp_path: Path, lost: str) -> None:
    output = open_store(str(tmp_path))
    run(output, FIRST, names(6), lost={1}, state="interrupted")
    output.delete(f"runs/{FIRST}/plan/{lost}")
    with pytest.raises(InputError, match="so nothing is left over for certain"):
        list(leftovers(output, NOW))


def test_young_files_are_left_alone(output: Store) -> None:
    litter(output, run(output, "20260101T000000Z-aaaa", names(2)))
    assert list(leftovers(output, timedelta(hours=24))) == []


def test_a_plan_is_left_whole_while_a_part_of_it_is_young(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    run(output, "20260101T000000Z-aaaa", names(2))
    for name, age in (("part-00000", 48), ("part-00001", 0)):
        output.put(f"runs/{NEVER}/plan/{name}.parquet", b"x")
        long_ago = time.time() - age * 3600
        os.utime(tmp_path / f"runs/{NEVER}/plan/{name}.parquet", (long_ago, long_ago))
    assert list(leftovers(output, timedelta(hours=24))) == []
    assert {leftover.kind for leftover in leftovers(output, NOW)} == {"plans"}


def test_indexes_that_a_newer_one_stands_for_go_once_they_are_old(tmp_path: Path) -> None:
    from pipeline.outputs.compact import compact
    from pipeline.outputs.index import newest_index

    output = open_store(str(tmp_path))
    for day in (1, 2):
        run(output, f"2026010{day}T000000Z-aaaa", names(3, start=day))
        compact(output)
    output.put(f"index/00000009-{'0' * 16}/shards.parquet", b"never finished")
    newest = newest_index(output)
    assert newest is not None
    assert list(leftovers(output, NOW)) == []
    for info in output.list("index/"):
        os.utime(tmp_path / info.key, (0, 0))
    found = [leftover.key for leftover in leftovers(output, NOW)]
    assert found
    assert {key.split("/")[1] for key in found} == {info.key.split("/")[1] for info in output.list("index/")} - {
        newest.id
    }
    assert found[0].endswith("manifest.json")


def test_files_that_were_being_written_when_their_writer_died_are_found(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    run(output, "20260101T000000Z-aaaa", names(2))
    aside = tmp_path / "masks" / "caf\\xe9" / f".fcn-{'0' * 32}.tmp"
    aside.parent.mkdir()
    aside.write_bytes(b"half")
    found = collect(output, NOW, delete=True)
    assert found.kinds["unfinished writes"].bytes == 4
    assert not aside.exists()


@settings(max_examples=6, deadline=None)
@given(
    first=st.integers(1, 12),
    second=st.integers(1, 12),
    lost=st.sets(st.integers(0, 2), max_size=2),
    strays=st.sets(st.sampled_from(["../x", "a//b", "dir/", "ä" * 200, "000.jpg", "n\nl"]), max_size=4),
)
def test_whatever_was_left_over_the_output_holds_together_afterwards(
    first: int, second: int, lost: set[int], strays: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = open_store(folder)
        run(output, "20260101T000000Z-aaaa", names(first))
        recipe = run(output, "20260102T000000Z-bbbb", names(second, start=6), lost=lost, state="interrupted", job="1")
        gone = {mask_key(recipe, key, "stray") for key in strays}
        for key in gone:
            output.put(key, b"x")
        awaited = {mask_key(recipe, key, "e") for key in names(second, start=6)}
        collect(output, NOW, delete=True)
        left = everything(output)
        assert list(verify(output, Verified())) == []
        rows = [table for run_id in result_runs(output) for table in read_results(output, run_id, ["mask_key"])]
        assert {key for table in rows for key in table["mask_key"].to_pylist()} <= left
        assert awaited <= left
        assert not gone & left


def test_gc_keeps_out_of_the_way_of_a_driver(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    stray = litter(output, run(output, "20260101T000000Z-aaaa", names(2)))
    with Lease.acquire(output), pytest.raises(InputError, match="being written by another run"):
        collect(output, NOW, delete=True)
    assert everything(output) >= stray


def test_an_output_without_its_results_is_left_alone(tmp_path: Path) -> None:
    output = open_store(str(tmp_path))
    run(output, "20260101T000000Z-aaaa", names(6), lost={1})
    with pytest.raises(InputError, match="only 1 of its 2 results files"):
        list(leftovers(output, NOW))


def flipped_mask_key(output: Store) -> None:
    """As one flipped bit makes it in a file of 0.1, which has no checksum: valid, and the name of no mask."""
    key = shard_key("results", FIRST, 0)
    table = read_table(output.get(key), key)
    names = table["mask_key"].to_pylist()
    changed = pa.array([names[0].replace(".jpg.", ".jpf."), *names[1:]], pa.string())
    rows = table.set_column(table.schema.get_field_index("mask_key"), table.schema.field("mask_key"), changed)
    rows = rows.replace_schema_metadata({"fcn_schema": "results/1"})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    output.put(key, sink.getvalue().to_pybytes())


def copied_results(output: Store) -> None:
    output.put(shard_key("results", FIRST, 0), output.get(shard_key("results", FIRST, 1)))


def results_of_another_model(output: Store) -> None:
    write_run(output, SECOND, dict.fromkeys(names(6), striped(1, 2)), model="9999999999999999")
    write_plan(output, SECOND, to_batches(ObjectInfo(key, "e", 1000, WHEN) for key in names(6)), SHARD)
    output.put(shard_key("results", FIRST, 0), output.get(shard_key("results", SECOND, 0)))


def a_flipped_bit(key: str) -> Callable[[Store], None]:
    def tamper(output: Store) -> None:
        data = bytearray(output.get(key))
        data[len(data) // 2] ^= 4
        output.put(key, bytes(data))

    return tamper


def a_lost_record(output: Store) -> None:
    output.delete(f"runs/{FIRST}/run.json")


FIRST, SECOND = "20260101T000000Z-aaaa", "20260101T000000Z-bbbb"


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (flipped_mask_key, "is not where the masks of this image are kept"),
        (copied_results, "its rows are not the images that were planned"),
        (results_of_another_model, "it has rows of another model_id than the run's"),
        (a_flipped_bit(shard_key("results", FIRST, 0)), "shard-00000000"),
        (a_flipped_bit(f"runs/{FIRST}/plan/part-00000.parquet"), "plan"),
        (a_flipped_bit(f"runs/{FIRST}/plan/plan.json"), "plan"),
        (a_flipped_bit(f"runs/{FIRST}/run.json"), "run.json"),
        (a_lost_record, "no run.json"),
    ],
)
def test_gc_deletes_nothing_where_what_says_which_masks_count_is_damaged(
    tmp_path: Path, tamper: Callable[[Store], None], said: str
) -> None:
    output = open_store(str(tmp_path))
    stray = litter(output, run(output, FIRST, names(6)))
    tamper(output)
    before = everything(output)
    with pytest.raises(PipelineError, match=said):
        collect(output, NOW, delete=True)
    assert {key for key in before if not key.startswith("lease/")} <= everything(output)
    assert stray <= before


def test_a_bucket_that_forbids_deleting_says_so(
    s3_endpoint: str, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    litter(open_store(f"s3://{bucket}"), run(open_store(f"s3://{bucket}"), "20260101T000000Z-aaaa", names(2)))
    with FaultyS3(s3_endpoint) as proxy:
        proxy.matches = lambda method, path: method == "DELETE"
        proxy.faults = ["403 AccessDenied"] * 100
        assert fcn(["gc", f"s3://{bucket}?endpoint_url={proxy.endpoint}", "--delete", "--older-than", "0s"]) == 1
    assert "not allowed to do this" in capsys.readouterr().err


def test_the_command_tells_first_and_deletes_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = open_store(str(tmp_path))
    stray = litter(output, run(output, "20260101T000000Z-aaaa", names(2)))

    def said(*more: str) -> str:
        assert fcn(["gc", str(tmp_path), "--older-than", "0s", *more]) == 0
        return capsys.readouterr().out

    assert f"{len(stray)} leftover files" in said()
    assert json.loads(said("--json"))["kinds"]["masks"]["files"] == 3
    assert "removed" in said("--delete")
    assert not everything(output) & stray
    assert json.loads(said("--json"))["kinds"].keys() <= {"leases"}


def test_gc_leaves_alone_what_lies_behind_a_link_to_a_folder(tmp_path: Path) -> None:
    """two/masks is a link to one/masks, whose masks no row of two names."""
    one, two = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "two"))
    run(one, FIRST, names(3))
    run(two, FIRST, ["x.jpg"])
    for info in list(two.list("masks/")):
        one.put(info.key, two.get(info.key))
    shutil.rmtree(tmp_path / "two" / "masks")
    (tmp_path / "two" / "masks").symlink_to(tmp_path / "one" / "masks")
    assert "masks" not in collect(two, NOW, delete=True).kinds
    assert list(verify(one, Verified())) == []
    assert list(verify(two, Verified())) == []


@pytest.mark.parametrize("command", [["gc", "--delete", "--older-than", "0s"], ["compact"]])
def test_a_service_that_overwrites_what_must_be_created_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    output = open_store(str(tmp_path))
    litter(output, run(output, FIRST, names(2)))
    before = everything(output)

    def check_writable(store: LocalStore) -> None:
        raise StorageError(f"{store.uri}: this service ignores If-None-Match")

    monkeypatch.setattr(LocalStore, "check_writable", check_writable)
    assert fcn([command[0], str(tmp_path), *command[1:]]) != 0
    assert "ignores If-None-Match" in capsys.readouterr().err
    assert everything(output) == before
