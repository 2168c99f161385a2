"""One order of what is committed: an image's newest row is that of the object that is there, for every reader."""

import os
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fcn_core.labels import decode_mask
from pipeline.actors import shard_runner
from pipeline.actors.observer import Observer
from pipeline.errors import PipelineError
from pipeline.exports.job import export_masks
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.compact import compact
from pipeline.outputs.current import current_rows, read_current
from pipeline.outputs.masks import find_mask
from pipeline.outputs.plan import read_manifest, read_shards
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.results import read_result_files, result_runs, shard_number
from pipeline.outputs.runs import records, write_record
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation import job as jobs
from pipeline.segmentation.estimate import estimate
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from tests.clocks import set_clock
from tests.in_process import segment_in_process
from tests.samples import jpeg

A, B = (96, 64), (64, 48)
"""Two versions of an image, told apart by width and height."""

DATES = {A: 1_700_000_000, B: 1_710_000_000}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    segment_in_process(monkeypatch)


@pytest.fixture
def job(tmp_path: Path, model_dir: Path) -> SegmentJob:
    (tmp_path / "photos").mkdir()
    return SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=1, actors=1,
        cpus_per_actor=1, codec_workers=1, device="cpu", engine="torch", no_report=True, allow_empty=True,
    )  # fmt: skip


def put(job: SegmentJob, key: str, version: tuple[int, int]) -> None:
    """Upload or restore a version of an image: equal versions have equal etags."""
    path = Path(job.source) / key
    path.unlink(missing_ok=True)
    path.write_bytes(jpeg(*version))
    os.utime(path, (DATES[version], DATES[version]))


class Told(Observer):
    """Keeps what a job says. With `stop`, asks for a stop when the first shard is committed."""

    def __init__(self, *, stop: bool = False) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []
        self._stop = stop
        self._committed = False

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        self._committed = True

    def should_stop(self) -> bool:
        return self._stop and self._committed


def stop_soon(job: SegmentJob) -> str:
    """Run a job until a shard is done; returns the run's id."""
    observer = Told(stop=True)
    assert segment(job, observer, observer.should_stop).state == "interrupted"
    return next(record.run_id for record in records(open_store(job.output)) if record.state == "interrupted")


def without_a_model(job: SegmentJob, patch: pytest.MonkeyPatch) -> RunReport:
    """Run a job that starts no actors."""
    with patch.context() as inner:
        inner.setattr(shard_runner, "ShardPool", None)
        return segment(job)


def current_sizes(job: SegmentJob, tmp_path: Path) -> dict[str, tuple[int, int] | str]:
    """Width and height of each image's current mask, or why it has none: by every way to ask, which all agree."""
    output = open_store(job.output)

    def said(row: dict[str, Any]) -> tuple[int, int] | str:
        return (row["width"], row["height"]) if row["status"] == "ok" else str(row["error"])

    columns = ["key", "status", "error", "width", "height"]
    answers = [{row["key"]: said(row) for row in read_current(output, columns).to_pylist()}]
    answers.append(
        {row["key"]: said(row) for batch in current_rows(output, columns=columns) for row in batch.to_pylist()}
    )
    with open_tables(output) as connection:
        table = run_query(connection, f"SELECT {', '.join(columns)} FROM current").read_all()
        answers.append({row["key"]: said(row) for row in table.to_pylist()})
    answers.append({row["key"]: said(row) for row in asked_as_documented(job.output)})
    assert all(one == other for one, other in pairwise(answers)), answers

    for key, size in answers[0].items():
        if not isinstance(size, str):
            height, width = decode_mask(find_mask(output, key).png).shape
            assert (width, height) == size
    if any(not isinstance(size, str) for size in answers[0].values()):
        plain = tmp_path / "plain"
        export_masks(job.output, str(plain))
        for key, size in answers[0].items():
            if not isinstance(size, str):
                height, width = decode_mask((plain / key).with_suffix(".png").read_bytes()).shape
                assert (width, height) == size
    assert list(verify(output, Verified())) == []
    return answers[0]


def asked_as_documented(output: str) -> list[dict[str, Any]]:
    """All of `current`, by the SQL of docs/results.md."""
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    view = re.search(r"```sql\n(CREATE OR REPLACE VIEW current AS\n.*?)```", text, re.DOTALL)
    assert view is not None
    connection = duckdb.connect()
    try:
        connection.execute(view[1].replace("labels/results", f"{output}/results"))
        rows: list[dict[str, Any]] = connection.sql("FROM current").to_arrow_table().to_pylist()
        return rows
    finally:
        connection.close()


def segmented(job: SegmentJob) -> Counter[tuple[str, str]]:
    """How often each version of an image was segmented: its ok rows, without those that say again what others said."""
    output = open_store(job.output)
    found: Counter[tuple[str, str]] = Counter()
    for run_id in result_runs(output):
        manifest = read_manifest(output, run_id)
        assert manifest is not None
        shards = {shard.number: shard for shard in read_shards(output, run_id, manifest)}
        for info, table in read_result_files(output, run_id):
            number = shard_number(info.key)
            assert number is not None
            again = {each.index for each in shards[number].earlier}
            for index, row in enumerate(table.to_pylist()):
                if row["status"] == "ok" and index not in again:
                    found[row["key"], row["etag"]] += 1
    return found


@pytest.mark.parametrize("masks", ["objects", "tar"])
def test_a_restored_image_has_its_own_mask_again(
    masks: str, job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job.model_copy(update={"masks": masks, "shard_size": 2})
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        put(job, key, A)
    segment(job)
    put(job, "b.jpg", B)
    segment(job)
    assert current_sizes(job, tmp_path) == {"a.jpg": A, "b.jpg": B, "c.jpg": A}

    put(job, "b.jpg", A)
    compact(open_store(job.output))
    foreseen = estimate(job).selection
    assert (foreseen.done, foreseen.reconfirmed, foreseen.selected) == (2, 1, 0)
    report = without_a_model(job, monkeypatch)
    assert (report.selection.done, report.selection.reconfirmed, report.counts.ok) == (2, 1, 1)
    assert current_sizes(job, tmp_path) == {"a.jpg": A, "b.jpg": A, "c.jpg": A}
    assert without_a_model(job, monkeypatch).runs == (), "it is said once"

    put(job, "b.jpg", B)
    put(job, "d.jpg", A)
    report = segment(job)
    assert (report.counts.ok, report.selection.reconfirmed) == (2, 1), "in a shard with one that is new"
    assert current_sizes(job, tmp_path) == {"a.jpg": A, "b.jpg": B, "c.jpg": A, "d.jpg": A}
    assert set(segmented(job).values()) == {1}


def test_a_row_that_can_no_longer_be_read_is_made_anew(job: SegmentJob, tmp_path: Path) -> None:
    for version in (A, B):
        put(job, "a.jpg", version)
        segment(job)
    put(job, "a.jpg", A)
    put(job, "b.jpg", A)
    output = open_store(job.output)
    (first, _) = result_runs(output)

    class Damages(Observer):
        def phase(self, name: str) -> None:
            if name == "reconfirming":
                output.delete(f"results/run_id={first}/shard-00000000.parquet")

    assert segment(job, Damages()).counts.ok == 2
    assert {row["key"]: row["width"] for row in read_current(output).to_pylist()} == {"a.jpg": A[0], "b.jpg": A[0]}


def test_an_image_that_was_missing_for_a_while_is_not_missing_for_ever(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(job, "a.jpg", A)
    segment(job)

    class Deletes(Observer):
        def phase(self, name: str) -> None:
            if name == "segmenting":
                (Path(job.source) / "a.jpg").unlink()

    put(job, "a.jpg", B)
    segment(job, Deletes())
    assert current_sizes(job, tmp_path) == {"a.jpg": "missing"}
    put(job, "a.jpg", A)
    assert without_a_model(job, monkeypatch).selection.reconfirmed == 1
    assert current_sizes(job, tmp_path) == {"a.jpg": A}


def test_an_old_list_of_keys_brings_no_old_mask_back(job: SegmentJob, tmp_path: Path) -> None:
    put(job, "a.jpg", A)
    (info,) = open_store(job.source).list()
    segment(job)
    listed = tmp_path / "yesterday.csv"
    listed.write_text(f"key,etag,size,last_modified\na.jpg,{info.etag},{info.size},{info.last_modified.isoformat()}\n")
    by_list = job.model_copy(update={"key_list": str(listed)})
    put(job, "a.jpg", B)
    segment(job)
    assert segment(by_list).runs == ()
    assert current_sizes(job, tmp_path) == {"a.jpg": B}
    put(job, "a.jpg", A)
    assert segment(by_list).selection.reconfirmed == 1, "where the list is right, it is believed"
    assert current_sizes(job, tmp_path) == {"a.jpg": A}


def test_what_another_run_has_done_is_not_done_again_by_an_older_one(job: SegmentJob, tmp_path: Path) -> None:
    for index in range(4):
        put(job, f"{index}.jpg", A)
    older = stop_soon(job)
    put(job, "3.jpg", B)
    newer = segment(job.model_copy(update={"include": ("*.jpg",)})).runs[-1].run_id
    put(job, "4.jpg", A)
    told = Told()
    assert not any("would be continued" in note for note in estimate(job).notes)
    report = segment(job, told)
    (run,) = report.runs
    assert older < newer < run.run_id, "the run that commits last is the newest"
    assert any(f"run {older} is not resumed, because run {newer} has committed since" in note for note in told.notes)
    assert report.counts.images == 1, "what nobody had done"
    assert set(segmented(job).values()) == {1}
    assert current_sizes(job, tmp_path) == {**{f"{index}.jpg": A for index in (0, 1, 2, 4)}, "3.jpg": B}


def test_a_late_commit_of_an_older_run_keeps_a_newer_one_from_doing_it_again(job: SegmentJob, tmp_path: Path) -> None:
    """Actors of a driver that was superseded may still commit what they had in hand."""
    for index in range(3):
        put(job, f"{index}.jpg", A)
    older = stop_soon(job)
    by_name = job.model_copy(update={"include": ("*.jpg",)})
    newer = stop_soon(by_name)
    assert older < newer

    elsewhere = job.model_copy(update={"output": str(tmp_path / "elsewhere")})
    same = segment(elsewhere).runs[0].run_id
    output, other = open_store(job.output), open_store(elsewhere.output)
    for info in other.list():
        if info.key.startswith("masks/") and "2.jpg" in info.key:
            output.create(info.key, other.get(info.key))
        if info.key.endswith("shard-00000002.parquet"):
            output.create(info.key.replace(same, older), other.get(info.key))

    assert segment(by_name).runs == (), "all three are done"
    assert set(segmented(job).values()) == {1}
    assert current_sizes(job, tmp_path) == {f"{index}.jpg": A for index in range(3)}


def test_a_run_that_has_committed_everything_is_closed_whatever_came_since(job: SegmentJob) -> None:
    """Its driver died before it wrote so; a limit would hold for ever for what is unfinished for ever."""
    for index in range(4):
        put(job, f"{index}.jpg", A)
    job = job.model_copy(update={"limit": 1})
    first = segment(job).runs[0]
    write_record(open_store(job.output), first.model_copy(update={"state": "running"}))
    segment(job.model_copy(update={"include": ("*.jpg",)}))
    assert [run.run_id for run in segment(job).runs] == [first.run_id]
    assert segment(job).counts.ok == 1, "the next one"


def test_a_limit_counts_what_a_run_did_that_is_not_resumed(job: SegmentJob) -> None:
    for index in range(6):
        put(job, f"{index}.jpg", A)
    job = job.model_copy(update={"limit": 3})
    stop_soon(job)
    segment(job.model_copy(update={"include": ("5.jpg",)}))
    assert segment(job).counts.ok == 2, "one of three was done"
    assert segment(job).counts.ok == 2, "and three more: there are two"


def test_a_clock_that_was_ahead_once_makes_nothing_old(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        put(job, key, A)
    with monkeypatch.context() as ahead:
        set_clock(ahead, datetime.now(UTC) + timedelta(days=1))
        first = segment(job).runs[0].run_id
    put(job, "a.jpg", B)
    second = segment(job).runs[0].run_id
    assert first < second
    assert current_sizes(job, tmp_path) == {"a.jpg": B, "b.jpg": A, "c.jpg": A}

    for key in ("b.jpg", "c.jpg"):
        put(job, key, B)
    interrupted = stop_soon(job)
    assert [run.run_id for run in segment(job).runs] == [interrupted], "it is the newest, and resumed"
    assert current_sizes(job, tmp_path) == dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), B)
    assert set(segmented(job).values()) == {1}


def test_an_output_that_0_1_left_in_disorder_is_put_right_by_the_next_run(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.1 named runs by the clock alone, so what came after one that was ahead was older than that."""
    put(job, "a.jpg", A)
    segment(job)
    put(job, "a.jpg", B)
    with monkeypatch.context() as as_it_was:
        as_it_was.setattr(jobs, "new_run_id", lambda output: "20200101T000000Z-0000")
        segment(job)
    assert current_sizes(job, tmp_path) == {"a.jpg": A}
    assert without_a_model(job, monkeypatch).selection.reconfirmed == 1
    assert current_sizes(job, tmp_path) == {"a.jpg": B}


# A driver that was superseded and does not know it yet


def identities(job: SegmentJob) -> Counter[tuple[str, str]]:
    """How many rows each image has, over all that was ever committed."""
    store = open_store(job.output)
    tables = [table for run_id in result_runs(store) for _, table in read_result_files(store, run_id)]
    return Counter((row["key"], row["etag"]) for table in tables for row in table.to_pylist())


class Overtaken(Observer):
    """Lets another job take over, and do all it has to, when the first shard is committed."""

    def __init__(self, other: SegmentJob) -> None:
        self._other = other
        self._is_over = False

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        if not self._is_over:
            self._is_over = True
            segment(self._other)


def test_what_actors_of_a_superseded_driver_finish_is_not_committed_beside_its_successors_rows(job: SegmentJob) -> None:
    """The driver hears of its successor with its next heartbeat, and its actors went on until then."""
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        put(job, key, A)
    other = job.model_copy(update={"include": ("*.jpg",), "takeover": True})
    with pytest.raises(PipelineError, match="another run took over"):
        segment(job, Overtaken(other))
    assert set(identities(job).values()) == {1}
    assert len(identities(job)) == 3
    newest = next(iter(records(open_store(job.output))))
    assert newest.state == "finished"
    assert {record.state for record in records(open_store(job.output))} == {"running", "finished"}, "not ours to close"
    assert segment(job).counts.images == 0


class OvertakenAtTheEnd(Observer):
    """Lets the same job take over when all is committed."""

    def __init__(self, job: SegmentJob) -> None:
        self._job = job

    def phase(self, name: str) -> None:
        if name == "writing tables":
            segment(self._job.model_copy(update={"takeover": True}))


def test_a_driver_that_was_superseded_when_all_was_committed_leaves_the_record_to_its_successor(
    job: SegmentJob,
) -> None:
    """It wrote its own over that, without the successor's attempt."""
    put(job, "a.jpg", A)
    with pytest.raises(PipelineError, match="another run took over"):
        segment(job, OvertakenAtTheEnd(job))
    (record,) = records(open_store(job.output))
    assert (record.state, len(record.attempts)) == ("finished", 2)
    assert sum(identities(job).values()) == 1


def test_a_driver_that_was_superseded_while_it_planned_begins_no_run(
    job: SegmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id would be larger than its successor's, and what it lists is older."""
    put(job, "a.jpg", A)
    write = jobs.write_plan

    def freeze(*arguments: Any) -> Any:
        monkeypatch.setattr(jobs, "write_plan", write)
        put(job, "a.jpg", B)
        segment(job.model_copy(update={"takeover": True}))
        return write(*arguments)

    monkeypatch.setattr(jobs, "write_plan", freeze)
    with pytest.raises(PipelineError, match="another run took over"):
        segment(job)
    (record,) = records(open_store(job.output))
    assert (record.state, record.counts.ok) == ("finished", 1)
    assert sum(identities(job).values()) == 1
