"""However an OUTPUT folder is damaged, `fcn verify` reports it in words, and `fcn gc` deletes no mask that a row names.

Each damage is one: a flipped bit, a file cut short, a zeroed block, two blocks exchanged, or a file in another's place.
"""

import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fcn_core.labels import encode_mask
from pipeline.errors import PipelineError
from pipeline.outputs import runs
from pipeline.outputs.compact import compact
from pipeline.outputs.gc import leftovers
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.packed import MaskPart, member_names
from pipeline.outputs.mask_formats.tar import TarMasks, build_tar
from pipeline.outputs.masks import mask_file
from pipeline.outputs.plan import write_plan
from pipeline.outputs.results import ClassArea, ResultRow, commit_shard, finish_tables, read_results, result_runs
from pipeline.outputs.runs import Counts, RunRecord, write_record
from pipeline.outputs.verify import Verified, verify
from pipeline.storage.batches import to_batches
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.labellings import CAMVID, CAR, ROAD, SETTINGS, SKY, WHEN, striped, write_run

OF_0_1 = Path(__file__).parents[2] / "compatibility" / "v0.1.0" / "labels"
SHARD = 3
VOUCHED = ("results/", "class_areas/", "class_totals/", "runs/", "index/", "masks/", "mask_tars/")
"""What `verify` vouches for; of runs/ not the progress, which is for watching only."""


def planned(store: Store, run_id: str, keys: list[str]) -> None:
    write_plan(store, run_id, to_batches(ObjectInfo(key, "e", 1000, WHEN) for key in keys), SHARD)


def write_packed(store: Store, run_id: str, keys: list[str]) -> None:
    """A finished run of one shard, its masks in a tar."""
    recipe = Recipe("9999999999999999", "2222222222222222")
    png = encode_mask(striped(ROAD, CAR), CAMVID)
    data, offsets = build_tar((name, png) for name in member_names(keys))
    file = TarMasks().key(recipe, 0, data)
    store.put(file, data)
    areas = (ClassArea(ROAD, "road", 40, 0.5), ClassArea(CAR, "car", 40, 0.5))
    rows = [
        ResultRow(
            key, "e", 1000, WHEN, "ok", recipe.model_id, recipe.params_id, width=10, height=8, orientation=1,
            mask_key=str(MaskPart(file, offset, len(png))), mask_sha256=hashlib.sha256(png).hexdigest(),
            areas=tuple(sorted(areas, key=lambda area: area.class_id)), confidence=0.5,
        )
        for key, offset in zip(keys, offsets, strict=True)
    ]  # fmt: skip
    commit_shard(store, run_id, 0, rows)
    totals = finish_tables(store, run_id, CAMVID.names, recipe.model_id, recipe.params_id)
    record = RunRecord(
        run_id=run_id, state="finished", job={"source": "s", "output": store.uri, "model": "m"}, job_digest="2",
        model_id=recipe.model_id, params_id=recipe.params_id, recipe=recipe.name, settings=SETTINGS, images=len(keys),
        shards=1, started=WHEN, finished=WHEN, seconds=1.0, version="0", counts=Counts(images=len(keys), ok=totals.ok),
    )  # fmt: skip
    planned(store, run_id, keys)
    write_record(store, record)


def write_output(folder: Path) -> Store:
    """Two runs with masks as objects, one of them stopped before its last shard; one with a tar; an index of all."""
    store = open_store(str(folder))
    first, second = "20260101T000000Z-aaaa", "20260102T000000Z-bbbb"
    keys = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "bad.jpg"]
    write_run(store, first, {**dict.fromkeys(keys[:4], striped(SKY, ROAD)), "bad.jpg": "truncated"}, shard_size=SHARD)
    planned(store, first, keys)
    more = ["e.jpg", "f.jpg", "g.jpg"]
    write_run(store, second, dict.fromkeys(more, striped(SKY)), shard_size=SHARD)
    planned(store, second, [*more, "h.jpg"])
    store.delete(f"class_totals/run_id={second}.parquet")
    stopped = {"state": "interrupted", "images": 4, "shards": 2, "job_digest": "1"}
    write_record(store, runs.read_record(store, second).model_copy(update=stopped))
    write_packed(store, "20260103T000000Z-cccc", ["a.jpg", "e.jpg"])
    compact(store)
    return store


def referenced(store: Store) -> set[str]:
    """The files that hold masks of committed rows."""
    tables = [table for run_id in result_runs(store) for table in read_results(store, run_id, ["mask_key"])]
    return {mask_file(key) for table in tables for key in table["mask_key"].to_pylist() if key is not None}


def damages(rng: random.Random, contents: dict[str, bytes], count: int) -> Iterator[tuple[str, str, bytes]]:
    """(kind, file, bytes that it holds afterwards), `count` of them, each other bytes than before."""
    files = sorted(contents)
    while count:
        file = rng.choice(files)
        data = contents[file]
        kind = rng.choice(["flip", "flip", "flip", "cut", "zero", "exchange", "other file"])
        found = bytearray(data)
        if kind == "flip":
            found[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del found[rng.randrange(len(data)) :]
        elif kind == "zero":
            start = rng.randrange(len(data))
            length = min(rng.choice([8, 64, 512, 4096]), len(data) - start)
            found[start : start + length] = bytes(length)
        elif kind == "exchange":
            length = rng.randrange(1, max(2, len(data) // 3))
            one, two = sorted(rng.sample(range(len(data) - length + 1), 2)) if len(data) > length + 1 else (0, 0)
            found[one : one + length], found[two : two + length] = found[two : two + length], found[one : one + length]
        else:
            folder = file.split("/")[0]
            found = bytearray(contents[rng.choice([each for each in files if each.split("/")[0] == folder])])
        if bytes(found) != data:
            count -= 1
            yield kind, file, bytes(found)


def check_damages(store: Store, folder: Path, count: int, seed: int, *, all_reported: bool) -> Counter[str]:
    """Damage files one after the other; returns how often, by kind, `verify` found nothing."""
    assert list(verify(store, Verified())) == []
    wanted = referenced(store)
    contents = {
        info.key: (folder / info.key).read_bytes()
        for info in store.list()
        if info.key.startswith(VOUCHED) and not info.key.endswith("progress.json")
    }
    unreported: Counter[str] = Counter()
    for number, (kind, file, found) in enumerate(damages(random.Random(seed), contents, count)):
        (folder / file).write_bytes(found)
        case = f"damage {number} of seed {seed}: {kind} in {file}"
        try:
            findings = list(verify(store, Verified()))
        except Exception as error:
            raise AssertionError(f"{case}: verify ended in {error!r}") from error
        assert findings or not all_reported, f"{case}: verify found nothing"
        unreported[kind] += not findings
        try:
            lost = {leftover.key for leftover in leftovers(store, timedelta(0))} & wanted
        except PipelineError:
            lost = set()  # it says why, and deletes nothing
        except Exception as error:
            raise AssertionError(f"{case}: gc ended in {error!r}") from error
        assert not lost, f"{case}: gc would delete {sorted(lost)}"
        (folder / file).write_bytes(contents[file])
    assert list(verify(store, Verified())) == [], "all is as it was"
    return unreported


@pytest.fixture
def of_0_1(tmp_path: Path) -> Path:
    """What 0.1 wrote, without checksums."""
    shutil.copytree(OF_0_1, tmp_path / "old")
    return tmp_path / "old"


def test_every_damage_is_reported_and_no_mask_that_a_row_names_is_left_over(tmp_path: Path) -> None:
    check_damages(write_output(tmp_path / "labels"), tmp_path / "labels", 60, seed=1, all_reported=True)


def test_damaged_files_of_0_1_cost_no_mask_either(of_0_1: Path) -> None:
    check_damages(open_store(str(of_0_1)), of_0_1, 40, seed=2, all_reported=False)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3, 11))
def test_every_one_of_2400_damages_is_reported(tmp_path: Path, seed: int) -> None:
    check_damages(write_output(tmp_path / "labels"), tmp_path / "labels", 300, seed, all_reported=True)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [11, 12])
def test_none_of_600_damages_of_an_output_of_0_1_costs_a_mask(of_0_1: Path, seed: int) -> None:
    check_damages(open_store(str(of_0_1)), of_0_1, 300, seed, all_reported=False)
