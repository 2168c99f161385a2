"""What participants do, all of it real code, and how it is judged that an output is whole."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from fcn_core import ModelBundle
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.compact import compact
from pipeline.outputs.current import read_current
from pipeline.outputs.gc import collect
from pipeline.outputs.masks import mask_file
from pipeline.outputs.results import read_results, result_runs
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation import job as jobs
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import Inputs
from pipeline.segmentation.segmenter import SegmenterSpec
from tests.in_process import segment_in_process
from tests.plain_worker import PlainWorker
from tests.protocol.memory import Calm, Contents, MemoryStore
from tests.protocol.virtual import virtual

SOURCE, OUTPUT = MemoryStore("source"), MemoryStore("output")

JOB = SegmentJob(
    source=SOURCE.uri, output=OUTPUT.uri, model="unused", shard_size=1, actors=1, cpus_per_actor=1, codec_workers=1,
    device="cpu", engine="torch", precision="float32", batch_size=1, no_report=True, allow_empty=True,
)  # fmt: skip
"""Every image is a shard."""

FIRST, SECOND = bytes(5), bytes(7)
"""Two versions of an image: its bytes, of which its mask has the length."""

LATER, LAST = "later+24h", "last+48h"
"""Participants to whom all others are long silent."""

Work = Callable[[], object]


def in_memory(patch: pytest.MonkeyPatch, inputs: Inputs) -> None:
    """Let `segment`, `collect` and `compact` work in memory, without Ray and without a network."""
    segment_in_process(patch)
    virtual(patch)
    opened = Inputs(SOURCE, OUTPUT, inputs.bundle, inputs.origin)
    patch.setattr(jobs, "check_inputs", lambda job: opened)

    def worker(spec: SegmenterSpec, files: object) -> PlainWorker:
        return PlainWorker(spec, inputs.bundle.labels, SOURCE, OUTPUT)

    patch.setattr(jobs, "Segmenter", worker)
    patch.setattr(ModelBundle, "to_files", lambda bundle: {})


def driver(job: SegmentJob = JOB) -> Work:
    return lambda: segment(job)


def clean() -> object:
    return collect(OUTPUT, timedelta(0), delete=True)


def index() -> object:
    return compact(OUTPUT)


def source_becomes(*versions: dict[str, bytes | None]) -> Work:
    """Images are put, or deleted, one after the other."""

    def change() -> None:
        for version in versions:
            for key, data in version.items():
                SOURCE.delete(key) if data is None else SOURCE.put(key, data)

    return change


def finish(contents: Contents, job: SegmentJob = JOB) -> Contents:
    """What is stored once another whole run, which nothing disturbs, has come after all of it; and then gc."""
    calm = Calm(contents)
    calm.do(LATER, lambda: segment(job))
    if any(key.startswith("output/index/") for key in calm.contents.objects):
        calm.do(LATER, index)  # an index that lacks a part is replaced
    calm.do(LAST, clean)
    return calm.contents


def problems(contents: Contents) -> list[str]:
    """Why the output is not whole: nothing may be missing, twice, or of an object that is not there."""
    found: list[str] = []
    Calm(contents).do("judge", lambda: found.extend(_problems()))
    return found


def _problems() -> list[str]:
    found = [f"verify: {finding.file}: {finding.problem}" for finding in verify(OUTPUT, Verified())]
    masks = {info.key for info in OUTPUT.list("masks/")} | {info.key for info in OUTPUT.list("mask_tars/")}
    for run_id in result_runs(OUTPUT):
        for table in read_results(OUTPUT, run_id, ["mask_key"]):
            lost = {mask_file(key) for key in table["mask_key"].drop_null().to_pylist()} - masks
            found += [f"{name} is gone, and run {run_id} names it" for name in sorted(lost)]
    there = {info.key: (info.etag, info.size) for info in SOURCE.list()}
    rows = read_current(OUTPUT).to_pylist() if there else []
    keys = [row["key"] for row in rows]
    found += [f"{key} has {keys.count(key)} current rows" for key in sorted(set(keys)) if keys.count(key) > 1]
    told = {row["key"]: (row["etag"], row["width"]) for row in rows if row["status"] == "ok" and row["key"] in there}
    found += [
        f"current tells {told.get(key)} of {key}, which is {there[key]}" for key in there if told.get(key) != there[key]
    ]
    return found
