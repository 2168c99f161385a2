"""Images come, change, go and return, runs stop and die, clocks jump: the next whole run tells the truth about all.

Real jobs on a folder, one after the other, in orders that hypothesis makes up; only the model is none, so that a run
takes milliseconds: a mask is as large as its image, and of class 0.
"""

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_core.labels import encode_mask
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.compact import compact
from pipeline.outputs.current import read_current
from pipeline.outputs.gc import collect
from pipeline.outputs.masks import find_mask
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.runs import records, write_record
from pipeline.outputs.shard import Shard
from pipeline.segmentation import job as jobs
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import Inputs, check_inputs
from pipeline.segmentation.segmenter import SegmenterSpec
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo
from tests.clocks import set_clock
from tests.in_process import segment_in_process
from tests.plain_worker import PlainWorker

KEYS = ("a.jpg", "b.jpg", "c.png")
VERSIONS = (5, 7)
"""Of an image: its bytes, and the width of its mask."""

steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from(VERSIONS)),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(
        st.just("run"),
        st.sampled_from(["all", "all", "jpg", "fresh"]),
        st.sampled_from(["whole", "whole", "stopped", "killed", "vanishing"]),
        st.sampled_from([-2, 0, 0, 2]),  # hours that the clock is ahead
    ),
    st.tuples(st.just("tidy"), st.sampled_from(["compact", "gc"])),
)


class World:
    """A folder of images, an output, and the jobs that are run on them."""

    def __init__(self, folder: Path, inputs: Inputs, patch: pytest.MonkeyPatch) -> None:
        self.source = folder / "photos"
        self.source.mkdir(parents=True)
        self.output = open_store(str(folder / "labels"))
        self.segmented: Counter[tuple[str, str]] = Counter()
        self._job = SegmentJob(
            source=str(self.source), output=str(folder / "labels"), model="unused", shard_size=1, actors=1,
            cpus_per_actor=1, codec_workers=1, device="cpu", engine="torch", no_report=True, allow_empty=True,
        )  # fmt: skip
        self.labels = inputs.bundle.labels
        self._vanish: str | None = None
        self._patch = patch
        opened = Inputs(open_store(str(self.source)), self.output, inputs.bundle, inputs.origin)
        patch.setattr(jobs, "check_inputs", lambda job: opened)
        patch.setattr(jobs, "Segmenter", self._worker)

    def put(self, key: str, version: int) -> None:
        self.delete(key)
        (self.source / key).write_bytes(bytes(version))
        os.utime(self.source / key, (1_700_000_000 + version, 1_700_000_000 + version))

    def delete(self, key: str) -> None:
        (self.source / key).unlink(missing_ok=True)

    def tidy(self, how: str) -> None:
        if how == "compact":
            compact(self.output)
        else:
            collect(self.output, timedelta(0), delete=True)

    def run(self, which: str, end: str, hours: int) -> None:
        changed = {"jpg": {"include": ("*.jpg",)}, "fresh": {"fresh": True}, "all": {}}[which]
        observer = _Stops(end in ("stopped", "killed"))
        self._vanish = next((path.name for path in sorted(self.source.iterdir())), None) if end == "vanishing" else None
        with self._patch.context() as clock:
            set_clock(clock, datetime.now(UTC) + timedelta(hours=hours))
            report = segment(self._job.model_copy(update=changed), observer, observer.should_stop)
        if end == "killed" and report.state == "interrupted":
            write_record(self.output, report.runs[-1].model_copy(update={"state": "running", "finished": None}))
        if report.state == "finished" and which != "jpg" and end != "vanishing":
            self.check()

    def check(self) -> None:
        """The truth: every image that is there has its own mask, for whoever asks, and was segmented once."""
        there = {info.key: (info.etag, info.size) for info in open_store(str(self.source)).list()}
        rows = {row["key"]: row for row in read_current(self.output).to_pylist()} if self.segmented else {}
        told = {key: (row["etag"], row["width"]) for key, row in rows.items() if row["status"] == "ok" and key in there}
        assert told == there
        assert max(self.segmented.values(), default=0) <= 1
        ids = [record.run_id for record in records(self.output)]
        assert ids == sorted(set(ids), reverse=True)

    def check_readers(self) -> None:
        there = {info.key: info.size for info in open_store(str(self.source)).list()}
        if not there:
            return
        with open_tables(self.output) as connection:
            table = run_query(connection, "SELECT key, width FROM current WHERE status = 'ok'").read_all()
        asked = {row["key"]: row["width"] for row in table.to_pylist() if row["key"] in there}
        assert asked == there
        for key, width in there.items():
            assert len(find_mask(self.output, key).png) == len(encode_mask(np.zeros((1, width), np.uint8), self.labels))

    def _worker(self, spec: SegmenterSpec, files: object) -> "_Worker":
        return _Worker(self, spec)

    def count(self, entry: ObjectInfo) -> None:
        self.segmented[entry.key, entry.etag] += 1

    def take_away(self) -> None:
        """Delete the image that vanishes in this run, when its first shard is begun."""
        if self._vanish is not None:
            self.delete(self._vanish)
            self._vanish = None


class _Stops(Observer):
    """Asks for a stop after the first shard, where that is wanted."""

    def __init__(self, stops: bool) -> None:
        self._stops = stops
        self._shards = 0

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        self._shards += 1

    def should_stop(self) -> bool:
        return self._stops and self._shards > 0


class _Worker(PlainWorker):
    """Takes an image away when its first shard is begun, where that is wanted."""

    def __init__(self, world: World, spec: SegmenterSpec) -> None:
        super().__init__(spec, world.labels, open_store(spec.source), world.output, world.count)
        self._world = world

    def process(self, shard: Shard) -> ShardOutcome:
        self._world.take_away()
        return super().process(shard)


@pytest.fixture(scope="module")
def inputs(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "photos").mkdir()
    return check_inputs(
        SegmentJob(source=str(folder / "photos"), output=str(folder / "labels"), model=str(model_dir), allow_empty=True)
    )


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(steps, max_size=12))
@example(
    steps=[
        ("put", "a.jpg", 5),
        ("run", "all", "whole", 2),  # the clock is ahead
        ("put", "a.jpg", 7),
        ("put", "b.jpg", 5),
        ("run", "all", "killed", 0),
        ("run", "jpg", "whole", -2),
        ("put", "a.jpg", 5),
        ("run", "all", "whole", 0),
    ]
)
def test_whatever_happens_to_images_runs_and_clocks_the_next_whole_run_tells_the_truth(
    steps: list[tuple[Any, ...]], inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        world = World(tmp_path_factory.mktemp("world"), inputs, patch)
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
        world.run("all", "whole", 0)
        world.check_readers()
