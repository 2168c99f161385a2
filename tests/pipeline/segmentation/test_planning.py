"""A job plans with an index that it makes by itself, without one where it cannot be made, and in bounded memory."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.actors.observer import Observer
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs import compact as compaction
from pipeline.outputs import plan
from pipeline.outputs.compact import compact
from pipeline.outputs.identity import Recipe
from pipeline.outputs.index import newest_index, read_history
from pipeline.outputs.plan import read_shards, write_plan
from pipeline.outputs.results import ResultRow, encode_results, shard_key
from pipeline.segmentation import selection
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.segmentation.selection import DoneIndex, SelectionCounts, select
from pipeline.storage.batches import to_batches
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo
from tests.in_process import segment_in_process
from tests.samples import fill

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class WatchedStore(LocalStore):
    """A folder that tells when a file is created."""

    def __init__(self, root: str, on_create: Callable[[], None]) -> None:
        super().__init__(root)
        self._on_create = on_create

    def create(self, key: str, data: bytes) -> None:
        self._on_create()
        super().create(key, data)


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_long_history_is_compacted_before_planning(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    job = SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1, engine="torch", shard_size=2, no_report=True,
    )  # fmt: skip
    output = open_store(job.output)
    notes = Notes()

    def run() -> RunReport:
        return segment(job, notes)

    fill(tmp_path / "photos", 6)
    first = run()
    assert (first.counts.images, first.reports) == (6, ())
    assert not (tmp_path / "labels" / "reports").exists(), "no_report"
    assert run().selection.done == 6
    assert newest_index(output) is None, "three files are not worth an index"

    monkeypatch.setattr(compaction, "MANY_FILES", 3)
    (tmp_path / "labels" / "index").write_text("in the way")
    assert run().selection.done == 6
    assert any("could not be compacted" in note for note in notes.notes), "it is said, and the job goes on"

    (tmp_path / "labels" / "index").unlink()
    report = run()
    assert (report.runs, report.selection.done) == ((), 6)
    assert read_history(output).late_files == 0

    fill(tmp_path / "photos" / "new", 1)
    report = run()
    assert (report.counts.images, report.selection.done) == (1, 6)
    index = newest_index(output)
    assert index is not None
    assert index.number == 1, "one new file is read by itself"
    assert read_history(output).late_files == 1


def test_planning_holds_no_more_for_more_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "LOOKED_UP_AT_ONCE", 2000)
    monkeypatch.setattr(plan, "IMAGES_PER_PART", 2000)
    monkeypatch.setattr(compaction, "PART_ROWS", 2000)
    monkeypatch.setattr(compaction, "SORTED_AT_ONCE", 4000)
    monkeypatch.setattr(compaction, "SPILL_BATCH_ROWS", 100)
    monkeypatch.setattr(compaction, "READS_AT_ONCE", 2)
    recipe = Recipe("model", "params")

    def peak(images: int) -> tuple[int, int]:
        """Bytes that Arrow held at most, while compacting and while planning."""
        held = [0]

        def watch() -> None:
            held.append(pa.total_allocated_bytes())

        output = WatchedStore(str(tmp_path / str(images)), watch)
        entries = [ObjectInfo(f"{index:08d}.jpg", f"{index:032d}", 1, WHEN) for index in range(images)]
        for shard, start in enumerate(range(0, images, 2000)):
            rows = [ResultRow(each.key, each.etag, 1, WHEN, "ok", "model", "params") for each in entries[start:][:1000]]
            output.create(shard_key("results", "run", shard), encode_results(rows))

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in to_batches(entries):
                watch()
                yield batch

        before = pa.total_allocated_bytes()
        compact(output, watch)
        compacting = max(held) - before
        held[:] = [0]
        done = DoneIndex.of(output, recipe)
        counts = SelectionCounts()
        manifest = write_plan(output, "new", select(watched(), include=(), exclude=(), done=done, counts=counts), 16)
        assert (counts.done, manifest.images, manifest.parts) == (images // 2, images // 2, -(-images // 4000))
        planning = max(held) - before
        for shard in read_shards(output, "new", manifest):
            assert len(shard.entries) <= 16
            watch()
        return compacting, max(planning, max(held) - before)

    peak(4000)
    small, large = peak(12_000), peak(60_000)
    # Of five times the images. How much the reading threads hold at a moment differs by half.
    assert large[0] < 2.5 * small[0], (large, small)
    assert large[1] < 2.5 * small[1], (large, small)
