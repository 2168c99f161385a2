"""Removing masks is safe however slow it is, and however slow the runs are that it meets.

Each test stops one of them before one of its requests to storage, lets others work meanwhile, and lets it go on.
"""

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fcn_core import Segmentation
from fcn_core.labels import encode_mask
from pipeline.errors import InputError, PipelineError
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.gc import collect
from pipeline.outputs.generation import begin_generation, current_generation
from pipeline.outputs.mask_formats.base import MaskTarget
from pipeline.outputs.mask_formats.objects import ObjectWriter, mask_key
from pipeline.outputs.plan import read_shards, require_plan, write_plan
from pipeline.outputs.results import commit_shard, finish_tables, read_results, result_runs
from pipeline.outputs.runs import Counts, RunRecord, create_record, run_ids, write_record
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.segmentation.rows import segmented
from pipeline.storage.batches import to_batches
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.in_process import segment_in_process
from tests.labellings import CAMVID, RECIPE, SETTINGS, WHEN, striped
from tests.samples import fill

NOW = timedelta(0)
FIRST, GIVEN_UP, NEXT = (f"2026010{day}T000000Z-aaaa" for day in (1, 2, 3))


class Stepped(LocalStore):
    """Calls `between` before the request whose number is `stop`, counted from 0, whichever thread makes it."""

    def __init__(self, root: str, stop: int | None = None, between: Callable[[], None] = lambda: None) -> None:
        super().__init__(root)
        self.requests: list[str] = []
        self._stop = stop
        self._between = between
        self._lock = threading.RLock()

    def _step(self, what: str) -> None:
        with self._lock:
            self.requests.append(what)
            if len(self.requests) - 1 == self._stop:
                self._between()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step(f"list {prefix}")
        return super().list(prefix)

    def get(self, key: str, **expected: Any) -> bytes:
        self._step(f"get {key}")
        return super().get(key, **expected)

    def put(self, key: str, data: bytes) -> None:
        self._step(f"put {key}")
        super().put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._step(f"create {key}")
        super().create(key, data)

    def delete(self, key: str) -> None:
        self._step(f"delete {key}")
        super().delete(key)


def relabel(output: Store, run_id: str, keys: list[str]) -> None:
    """What a driver and its actors do with these images, request by request, without a model."""
    entries = [ObjectInfo(key, "e", 1000, WHEN) for key in keys]
    manifest = write_plan(output, run_id, to_batches(entries), 2)
    generation = current_generation(output)
    record = RunRecord(
        run_id=run_id, state="running", job={}, job_digest=run_id, model_id=RECIPE.model_id, recipe=RECIPE.name,
        params_id=RECIPE.params_id, settings=SETTINGS, images=len(keys), shards=manifest.shards, started=WHEN,
        generation=generation, version="0",
    )  # fmt: skip
    create_record(output, record)
    require_plan(output, run_id, manifest)
    mask = striped(1, 2)
    areas = np.bincount(mask.ravel(), minlength=CAMVID.num_classes)
    result = Segmentation(mask, areas, 0.5)
    for shard in read_shards(output, run_id, manifest):
        images = [segmented(each, RECIPE, 1, None, result, encode_mask(mask, CAMVID), CAMVID) for each in shard.entries]
        writer = ObjectWriter(MaskTarget(output, RECIPE, CAMVID, shard, generation))
        rows = [writer.write(image) for image in images]
        commit_shard(output, run_id, shard.number, rows)
    totals = finish_tables(output, run_id, CAMVID.names, RECIPE.model_id, RECIPE.params_id)
    counts = Counts(images=totals.ok, ok=totals.ok)
    write_record(output, record.model_copy(update={"state": "finished", "counts": counts}))


def delete_run(output: Store, run_id: str) -> None:
    """As docs/upkeep.md says; its masks stay."""
    for table in (f"results/run_id={run_id}/", f"class_areas/run_id={run_id}/", f"class_totals/run_id={run_id}.parquet",
                  f"runs/{run_id}/"):  # fmt: skip
        for info in list(output.list(table)):
            output.delete(info.key)


def left_over(root: Path) -> LocalStore:
    """An output with one run, and with two masks of one that was deleted: made once beside `root`, and copied."""
    original = root.parent / "original"
    if not original.exists():
        output = LocalStore(str(original))
        relabel(output, FIRST, ["a.jpg", "b.jpg"])
        relabel(output, GIVEN_UP, ["c.jpg", "d.jpg"])
        delete_run(output, GIVEN_UP)
    shutil.copytree(original, root)
    return LocalStore(str(root))


def refusal(output: Store) -> str:
    """Why a run over the leftovers' images ended before its time; "" when it did not."""
    try:
        relabel(output, NEXT, ["c.jpg", "d.jpg"])
    except PipelineError as error:
        return str(error)
    return ""


def clean(output: Store) -> None:
    with contextlib.suppress(InputError):  # it may see what a run has half done, and does nothing then
        collect(output, NOW, delete=True)


def holds_together(output: Store) -> bool:
    return list(verify(output, Verified())) == []


@pytest.fixture(autouse=True)
def lost_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease keeps nobody out: its owner was taken for dead."""
    monkeypatch.setattr("pipeline.outputs.lease.Lease._is_alive", lambda *args: False)


def requests_of(root: Path, work: Callable[[Stepped], None]) -> list[str]:
    left_over(root)
    store = Stepped(str(root))
    work(store)
    return store.requests


def test_gc_that_freezes_before_any_of_its_requests_deletes_no_mask_of_a_run_that_came_meanwhile(
    tmp_path: Path,
) -> None:
    steps = requests_of(tmp_path / "calm", clean)
    assert sum(step.startswith("delete masks/") for step in steps) == 2
    for stop, step in enumerate(steps):
        output = left_over(tmp_path / str(stop))
        frozen = Stepped(output.uri, stop, lambda output=output: relabel(output, NEXT, ["c.jpg", "d.jpg"]))  # type: ignore[misc]
        clean(frozen)
        assert holds_together(output), f"frozen before {step}"
        assert sum(map(len, read_results(output, NEXT))) == 2


def test_a_run_that_freezes_before_any_of_its_requests_loses_no_mask_to_a_gc_that_came_meanwhile(
    tmp_path: Path,
) -> None:
    steps = requests_of(tmp_path / "calm", lambda store: relabel(store, NEXT, ["c.jpg", "d.jpg"]))
    for stop, step in enumerate(steps):
        output = left_over(tmp_path / str(stop))
        frozen = Stepped(output.uri, stop, lambda output=output: clean(output))  # type: ignore[misc]
        refused = refusal(frozen)
        if refused:
            # Its plan was old and had no run: it says so before any work, and leaves nothing that stands in the way.
            assert f"the plan of run {NEXT} was removed before the run began" in refused, f"frozen before {step}"
            assert NEXT not in {*result_runs(output), *run_ids(output)}
        assert holds_together(output), f"frozen before {step}"


def test_deletions_that_were_decided_long_ago_meet_no_mask_of_a_run_that_another_gc_met(tmp_path: Path) -> None:
    """One gc freezes when all is decided; a run begins and freezes in its turn; a second gc comes and goes."""
    calm = requests_of(tmp_path / "calm", clean)
    decided = next(number for number, step in enumerate(calm) if step.startswith("delete masks/"))
    steps = requests_of(tmp_path / "run", lambda store: relabel(store, NEXT, ["c.jpg", "d.jpg"]))
    for stop, step in enumerate(steps):
        output = left_over(tmp_path / str(stop))

        def meanwhile(output: LocalStore = output, stop: int = stop) -> None:
            refusal(Stepped(output.uri, stop, lambda: clean(output)))

        clean(Stepped(output.uri, decided, meanwhile))
        assert holds_together(output), f"frozen before {step}"


@pytest.mark.parametrize("masks", ["objects", "tar"])
def test_a_real_run_keeps_its_masks_from_a_gc_that_lost_its_lease(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, masks: Literal["objects", "tar"]
) -> None:
    segment_in_process(monkeypatch)
    job = SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1, engine="torch", shard_size=2, no_report=True, masks=masks,
    )  # fmt: skip
    fill(tmp_path / "photos", 2)
    segment(job)
    fill(tmp_path / "photos", 2, start=2)
    (record,) = segment(job).runs
    output = open_store(job.output)
    delete_run(output, record.run_id)

    class Frozen(LocalStore):
        """Another driver supersedes gc before its first deletion of a mask."""

        def __init__(self, root: str) -> None:
            super().__init__(root)
            self.lock = threading.Lock()
            self.meanwhile: list[str] = []

        def delete(self, key: str) -> None:
            with self.lock:
                if key.startswith(("masks/", "mask_tars/")) and not self.meanwhile:
                    (run,) = segment(job.model_copy(update={"takeover": True})).runs
                    self.meanwhile.append(run.run_id)
            super().delete(key)

    frozen = Frozen(job.output)
    collect(frozen, NOW, delete=True)
    assert frozen.meanwhile
    assert list(verify(output, Verified())) == []
    assert segment(job).selection.done == 4
    assert not collect(output, NOW).kinds.keys() & {"masks", "mask tars"}
    delete_run(output, frozen.meanwhile[0])
    assert collect(output, NOW, delete=True).kinds.keys() & {"masks", "mask tars"}, "in their turn they can go"
    assert list(verify(output, Verified())) == []


def test_a_driver_asks_for_its_generation_when_its_plan_is_there_and_for_its_plan_when_its_record_is(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 1)
    requests: list[str] = []
    for name in ("list", "create"):
        whole = getattr(LocalStore, name)

        def noted(store: LocalStore, *args: Any, name: str = name, whole: Callable[..., Any] = whole) -> Any:
            requests.append(f"{name} {args[0] if args else ''}")
            return whole(store, *args)

        monkeypatch.setattr(LocalStore, name, noted)
    report = segment(
        SegmentJob(
            source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), device="cpu",
            actors=1, cpus_per_actor=1, engine="torch", no_report=True,
        )
    )  # fmt: skip
    run = f"runs/{report.runs[0].run_id}"
    in_order = [f"create {run}/plan/plan.json", "list gc/", f"create {run}/run.json", f"list {run}/plan/"]
    places = [requests.index(each) for each in in_order]
    first_mask = next(place for place, each in enumerate(requests) if each.startswith("create masks/"))
    assert places == sorted(places)
    assert places[-1] < first_mask


def test_names_change_only_where_masks_went(tmp_path: Path) -> None:
    output = left_over(tmp_path / "labels")
    assert collect(output, NOW, delete=True).kinds["masks"].files == 2
    assert current_generation(output) == 1
    assert "masks" not in collect(output, NOW, delete=True).kinds
    assert current_generation(output) == 1
    relabel(output, NEXT, ["c.jpg", "d.jpg"])
    (table,) = read_results(output, NEXT)
    assert table["mask_key"].to_pylist() == [mask_key(RECIPE, key, "e", 1) for key in ("c.jpg", "d.jpg")]
    assert mask_key(RECIPE, "c.jpg", "e", 1) == mask_key(RECIPE, "c.jpg", "e").replace(".png", "-1.png")
    assert list(verify(output, Verified())) == []


def test_masks_of_later_generations_are_left_over_too_and_then_go(tmp_path: Path) -> None:
    output = left_over(tmp_path / "labels")
    collect(output, NOW, delete=True)
    relabel(output, NEXT, ["c.jpg", "d.jpg"])
    delete_run(output, NEXT)
    assert collect(output, NOW, delete=True).kinds["masks"].files == 2
    assert current_generation(output) == 2


def test_two_that_begin_a_generation_at_once_both_have_one(tmp_path: Path) -> None:
    output = LocalStore(str(tmp_path))
    rival = Stepped(output.uri, 1, lambda: output.create("gc/00000001.json", b"{}"))
    assert begin_generation(rival) == 1
    assert current_generation(output) == 1
