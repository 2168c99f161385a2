"""Masks that are gone are found by `fcn verify`, and made again by the same job with --repair."""

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from pipeline.actors.observer import Observer
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.lost_masks import lost_masks
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.masks import find_mask, mask_file
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.segmentation.selection import DoneIndex
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.in_process import segment_in_process
from tests.labellings import RECIPE, striped, write_run
from tests.samples import fill


class Phases(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def phase(self, name: str) -> None:
        self.seen.append(name)


@pytest.mark.parametrize("masks", ["objects", "tar"])
def test_rows_whose_mask_is_gone_are_found_by_verify_and_repaired_by_the_next_run(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, masks: Literal["objects", "tar"]
) -> None:
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 4)
    job = SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1, engine="torch", shard_size=2, no_report=True, masks=masks,
    )  # fmt: skip
    segment(job)
    output = open_store(job.output)
    keys = read_current(output)["key"].to_pylist()
    before = {key: find_mask(output, key).png for key in keys}
    lost = mask_file(find_mask(output, keys[0]).mask_key)
    output.delete(lost)
    touched = 1 if masks == "objects" else 2

    def problems() -> list[str]:
        return [finding.problem for finding in verify(output, Verified())]

    assert len(problems()) == touched
    assert all("--repair` makes it again" in problem for problem in problems())
    assert segment(job).selection.done == 4, "a plain run does not look at masks"

    phases = Phases()
    stopped = segment(job.model_copy(update={"repair": True}), phases, should_stop=lambda: "segmenting" in phases.seen)
    assert (stopped.state, len(stopped.runs)) == ("interrupted", 1)
    repaired = segment(job)  # the plain command goes on with it
    assert (repaired.counts.images, repaired.counts.ok) == (touched, touched)
    assert problems() == []
    assert {key: find_mask(output, key).png for key in keys} == before
    assert segment(job.model_copy(update={"repair": True})).runs == (), "and once is enough"


def test_of_two_rows_of_an_image_the_newer_ones_mask_is_what_counts(tmp_path: Path) -> None:
    output: Store = open_store(str(tmp_path))
    assert lost_masks(output, RECIPE) == set()
    for day in (1, 2):
        write_run(output, f"2026010{day}T000000Z-aaaa", {"a.jpg": striped(1), "b.jpg": striped(2), "c.jpg": "damaged"})
    write_run(output, "20260103T000000Z-aaaa", {"a.jpg": striped(1)}, model="another")
    assert lost_masks(output, RECIPE) == set()
    output.delete(mask_key(RECIPE, "b.jpg", "e"))
    assert lost_masks(output, RECIPE) == {("b.jpg", "e")}


def test_an_image_that_lost_its_mask_is_not_done_by_an_error_of_before(tmp_path: Path) -> None:
    output: Store = open_store(str(tmp_path))
    write_run(output, "20260101T000000Z-aaaa", {"a.jpg": "damaged", "b.jpg": "damaged"})
    write_run(output, "20260102T000000Z-aaaa", {"a.jpg": striped(1)})
    output.delete(mask_key(RECIPE, "a.jpg", "e"))
    done = DoneIndex.of(output, RECIPE, lost=lost_masks(output, RECIPE))
    found = done.look_up(pa.array(["a.jpg", "b.jpg"]), pa.array(["e", "e"]))
    assert (found.done.tolist(), found.overruled.tolist()) == ([False, True], [False, False])
