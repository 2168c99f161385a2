"""A small job is the same job without Ray, byte for byte; and what happens to its process happens to no image."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.actors import shard_runner
from pipeline.actors.lone_worker import LoneWorker
from pipeline.actors.observer import Observer
from pipeline.evaluation.job import evaluate
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.runs import RunRecord, records
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.gate import gated_images
from tests.labelled import write_labelled
from tests.samples import fill

OPTIONS: dict[str, Any] = {
    "device": "cpu", "engine": "torch", "precision": "float32", "actors": 1, "cpus_per_actor": 1, "codec_workers": 1,
}  # fmt: skip
OF_THE_MOMENT = {"run_id", "started", "finished", "seconds", "attempts", "stage_seconds", "job", "job_digest"}

pytestmark = pytest.mark.usefixtures("ray_cluster")


class Told(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, name: str) -> None:
        self.phases.append(name)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Jobs begin without Ray, though there is one, which others are waiting for."""
    monkeypatch.setattr(shard_runner, "may_do", lambda *_: True)
    return monkeypatch


def labelled(source: str, output: Path, model: Path, **options: Any) -> tuple[Told, RunRecord]:
    told = Told()
    job = SegmentJob(
        source=source, output=str(output), model=str(model), no_report=True, **{"shard_size": 2, **OPTIONS, **options}
    )
    assert segment(job, told).state == "finished"
    return told, next(records(open_store(str(output))))


def test_a_small_job_is_byte_for_byte_what_ray_makes_of_it(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    fill(source, 5)
    (source / "broken.jpg").write_bytes(b"no photo")
    actors, by_actors = labelled(str(source), tmp_path / "actors", model_dir)
    monkeypatch.setattr(shard_runner, "may_do", lambda *_: True)
    alone, by_itself = labelled(str(source), tmp_path / "alone", model_dir)
    assert "starting Ray" in actors.phases
    assert "starting Ray" not in alone.phases
    tables = [read_current(open_store(str(tmp_path / name))).drop_columns(["run_id"]) for name in ("actors", "alone")]
    assert tables[0].equals(tables[1])
    masks = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "masks").rglob("*.png")}
        for name in ("actors", "alone")
    ]
    assert len(masks[0]) == 5
    assert masks[0] == masks[1]
    assert by_actors.model_dump(exclude=OF_THE_MOMENT) == by_itself.model_dump(exclude=OF_THE_MOMENT)


def test_actors_go_on_where_the_process_was_killed(
    s3_endpoint: str, tmp_path: Path, model_dir: Path, alone: pytest.MonkeyPatch
) -> None:
    with gated_images(s3_endpoint, 6) as gate:
        gate.allow(4)  # the process has committed a shard, and holds others
        pids: list[int] = []

        class Killed(LoneWorker):
            def run(self, factory: Any, arguments: Any, shards: Any, on_done: Any, *others: Any) -> bool:
                def done(outcome: Any) -> None:
                    on_done(outcome)
                    if not pids:
                        pids.append(self._process.pid)
                        os.kill(self._process.pid, signal.SIGKILL)
                        gate.allow(6)

                return super().run(factory, arguments, shards, done, *others)

        alone.setattr(shard_runner, "lone_worker", Killed)
        told, record = labelled(gate.source, tmp_path / "labels", model_dir)
    assert pids
    assert "the worker process was ended by SIGKILL; Ray's actors go on" in told.notes
    assert told.phases.index("segmenting") < told.phases.index("starting Ray")
    assert (record.images, record.counts.ok, record.counts.failed) == (6, 6, 0)
    assert len(read_current(open_store(str(tmp_path / "labels")))) == 6


def test_an_evaluation_without_ray_has_the_same_scores(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(tmp_path, 4)
    job = EvaluateJob(model=str(model_dir), dataset=str(tmp_path), labels="camvid", **OPTIONS)
    by_actors = evaluate(job)
    monkeypatch.setattr(shard_runner, "may_do", lambda *_: True)
    told = Told()
    alone = evaluate(job, told)
    assert "starting Ray" not in told.phases
    assert alone.table.equals(by_actors.table)
    assert alone.scores == by_actors.scores
