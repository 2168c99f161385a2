"""Jobs that end before their work is done: the same call goes on, and nothing is done twice, lost, or overruled."""

import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.actors.observer import Observer
from pipeline.errors import PipelineError
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs import lease as leases
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.outputs.runs import records
from pipeline.segmentation.estimate import estimate
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import check_inputs, resolve
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.samples import fill


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    segment_in_process(monkeypatch)


class StopsSoon(Observer):
    """Asks for a stop when the first shard is committed. One actor then has one more at most, of those here."""

    def __init__(self) -> None:
        self.images = 0

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        self.images += outcome.images

    def should_stop(self) -> bool:
        return self.images > 0


@pytest.fixture
def job(tmp_path: Path, model_dir: Path) -> SegmentJob:
    """Of a shard per image, by one actor. Its source is still empty."""
    return SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=1, actors=1,
        cpus_per_actor=1, codec_workers=1, device="cpu", engine="torch", no_report=True,
    )  # fmt: skip


def stop_soon(job: SegmentJob) -> StopsSoon:
    """Run the job until a shard or two are done."""
    observer = StopsSoon()
    assert segment(job, observer, observer.should_stop).state == "interrupted"
    return observer


def test_a_stopped_run_is_continued_by_the_same_call_and_a_limit_holds_over_that(job: SegmentJob) -> None:
    source, output = Path(job.source), open_store(job.output)
    fill(source, 6)
    job = job.model_copy(update={"limit": 8})
    stop_soon(job)
    (record,) = records(output)
    assert record.state == "interrupted"

    fill(source, 3, start=6)
    resumed = segment(job)
    assert resumed.state == "finished"
    assert resumed.runs[0].run_id == record.run_id
    assert [run.counts.images for run in resumed.runs] == [6, 2], "what was left over, then what is new"
    assert len(list(output.list("masks/"))) == 8
    assert estimate(job).selection.selected == 1, "the next call may take eight more"


def test_a_stopped_retry_is_not_retried_twice(job: SegmentJob) -> None:
    Path(job.source).mkdir()
    for index in range(5):
        (Path(job.source) / f"{index}.jpg").write_bytes(b"not an image")
    inputs = check_inputs(job)
    recipe = resolve(job, inputs).recipe
    failed = [
        ResultRow(info.key, info.etag, info.size, info.last_modified, "error", recipe.model_id, recipe.params_id,
                  error="not_an_image", message="It is none.")
        for info in inputs.source.list()
    ]  # fmt: skip
    commit_shard(inputs.output, "20260101T000000Z-aaaa", 0, failed)
    assert estimate(job).selection.selected == 0

    again = job.model_copy(update={"retry_errors": True})
    stop_soon(again)
    report = segment(again)
    assert len(report.runs) == 1
    assert report.counts.images == 5, "five were there to be retried, and not twice"


def test_a_superseded_driver_stops_with_a_reason_and_leaves_the_run_to_its_successor(
    job: SegmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    fill(Path(job.source), 8)
    successor: list[leases.Lease] = []
    others = set(threading.enumerate())

    class TakesOver(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            if not successor:
                (heart,) = {thread for thread in threading.enumerate() if thread.name == "lease"} - others
                successor.append(leases.Lease.acquire(open_store(job.output), takeover=True))
                heart.join(120)  # it ends when it has seen the higher number

    with pytest.raises(PipelineError, match="another run took over"):
        segment(job, TakesOver())
    (record,) = records(open_store(job.output))
    assert record.state == "running", "the record is the successor's to close"
    successor[0].release()
    assert segment(job).counts.ok == 8


def test_fresh_plans_anew_and_leaves_what_is_done(job: SegmentJob) -> None:
    fill(Path(job.source), 6)
    seen = stop_soon(job).images
    report = segment(job.model_copy(update={"fresh": True}))
    assert len(report.runs) == 1, "the unfinished run is left alone"
    assert report.selection.done >= seen, "a shard may commit while the stop is on its way"
    assert report.counts.images == 6 - report.selection.done
