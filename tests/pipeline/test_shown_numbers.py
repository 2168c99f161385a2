"""Every number that people are shown of a run is one that numpy finds in its masks and rows.

Six runs: plain, resumed, killed and resumed, with a second variant, incremental, all failed. On the terminal, in
`--json`, `fcn runs`, `fcn runs watch`, the report, Prefect and Prometheus.
"""

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from fcn_core import preset
from fcn_core.labels import decode_mask
from pipeline.actors import metrics
from pipeline.actors.metrics import Metric, Recorder
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.cli import console
from pipeline.cli.app import run as fcn
from pipeline.jobs.segment import SegmentJob
from pipeline.numbers import count, counted, duration, percent, rate
from pipeline.outputs.runs import Attempt, Counts, Progress, RunRecord, progress_key, write_record
from pipeline.report.make import make_report
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.in_process import segment_in_process
from tests.samples import fill

LABELS = preset("camvid")


@dataclass(frozen=True)
class Truth:
    """What the rows and masks of a run are, without any of the library's sums."""

    images: int
    ok: int
    errors: dict[str, int]
    pixels: dict[str, int]
    present: dict[str, int]
    confidence: float
    read_bytes: int
    mask_bytes: int

    @property
    def all_pixels(self) -> int:
        return sum(self.pixels.values())


def truth_of(output: Store, run_id: str) -> Truth:
    folder = Path(output.uri)
    files = sorted((folder / "results" / f"run_id={run_id}").glob("*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    ok = [row for row in rows if row["status"] == "ok"]
    masks = [decode_mask((folder / row["mask_key"]).read_bytes()) for row in ok]
    counts = np.array([np.bincount(mask.ravel(), minlength=LABELS.num_classes) for mask in masks] or [[0] * 11])
    return Truth(
        len(rows),
        len(ok),
        dict(Counter(row["error"] for row in rows if row["status"] != "ok")),
        dict(zip(LABELS.names, counts.sum(axis=0).tolist(), strict=True)),
        dict(zip(LABELS.names, (counts > 0).sum(axis=0).tolist(), strict=True)),
        float(np.mean([row["confidence"] for row in ok])) if ok else 0.0,
        sum(row["size"] for row in rows),
        sum((folder / row["mask_key"]).stat().st_size for row in ok),
    )


class Measured(dict[tuple[str, tuple[tuple[str, str], ...]], float]):
    """What was recorded for Prometheus: by a metric's name and its tags, sums of counters and newest of gauges."""

    def of(self, metric: Metric, **tags: str) -> float:
        return self.get((metric.name, tuple(sorted(tags.items()))), 0.0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measured:
    """Jobs work in this process, and what they record for Prometheus is kept."""
    found = Measured()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))

    def record(self: Recorder, metric: Metric, value: float, tags: dict[str, str]) -> None:
        place = metric.name, tuple(sorted(tags.items()))
        found[place] = found.get(place, 0.0) + value if metric.kind == "counter" else value

    monkeypatch.setattr(Recorder, "_record", record)
    segment_in_process(monkeypatch)
    return found


class Heard(Observer):
    """Keeps the last progress, and what each shard was told with."""

    def __init__(self) -> None:
        self.newest: Progress | None = None
        self.shards: list[tuple[int, int]] = []

    def progress(self, progress: Progress) -> None:
        assert self.newest is None or progress.done >= self.newest.done, "progress does not go back"
        self.newest = progress

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        self.shards.append((done, images))


class Site:
    """A source with images, and a job on it."""

    def __init__(self, folder: Path, model: Path, images: int, broken: int) -> None:
        self.photos = folder / "photos"
        if images:
            fill(self.photos, images, size=(48, 32))
        self.photos.mkdir(exist_ok=True)
        for number in range(broken):
            (self.photos / f"broken{number}.jpg").write_bytes(b"no image")
        self.output = open_store(str(folder / "labels"))
        self.job = SegmentJob(
            source=str(self.photos), output=self.output.uri, model=str(model), device="cpu", engine="torch",
            precision="float32", actors=1, cpus_per_actor=1, codec_workers=1, shard_size=4, max_error_rate=1,
        )  # fmt: skip
        self.heard = Heard()

    def run(self, **changes: Any) -> RunReport:
        self.heard = Heard()
        return segment(self.job.model_copy(update=changes), self.heard)

    def stopped_after(self, shards: int) -> RunReport:
        self.heard = Heard()
        return segment(self.job, self.heard, lambda: len(self.heard.shards) >= shards)


MakeSite = Callable[..., Site]


@pytest.fixture
def site(tmp_path: Path, model_dir: Path) -> MakeSite:
    return lambda images=13, broken=1: Site(tmp_path, model_dir, images, broken)


def test_a_plain_run(site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    here = site()
    check_everything(here, here.run(), measured, capsys, attempts=1)


def test_a_resumed_run(site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    here = site()
    stopped = here.stopped_after(2)
    assert stopped.state == "interrupted"
    (record,) = stopped.runs
    committed = truth_of(here.output, record.run_id)
    assert 0 < committed.images < 14
    check_runs(here.output, record.run_id, committed, capsys)
    stopped = here.stopped_after(1)  # once more: its last attempt is not all there is
    committed = truth_of(here.output, record.run_id)
    assert committed.images > stopped.runs[0].attempts[-1].images > 0
    check_terminal(stopped, {record.run_id: committed}, here.output)
    check_runs(here.output, record.run_id, committed, capsys)
    check_everything(here, here.run(), measured, capsys, attempts=3)


def test_a_killed_and_resumed_run(site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    here = site()
    (record,) = here.stopped_after(2).runs
    committed = truth_of(here.output, record.run_id)
    # What a driver leaves that was killed: the record of its beginning, and progress that lags behind.
    began = record.attempts[0].started
    left = {"state": "running", "reason": None, "counts": Counts(), "shards_done": 0, "seconds": 0.0, "finished": None}
    write_record(here.output, record.model_copy(update={**left, "attempts": (Attempt(started=began),)}))
    progress = Progress.model_validate_json(here.output.get(progress_key(record.run_id)))
    behind = progress.model_copy(update={"counts": Counts(images=4, ok=4), "shards_done": 1, "done": 4})
    here.output.put(progress_key(record.run_id), behind.model_dump_json().encode())
    check_runs(here.output, record.run_id, committed, capsys)
    page = text_of(make_report(here.output, record.run_id))
    assert f"{committed.ok} image" in page
    check_everything(here, here.run(), measured, capsys, attempts=2)


def test_a_second_variant(site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    here = site()
    (before,) = here.run().runs
    measured.clear()
    report = here.run(max_side=24)
    check_everything(here, report, measured, capsys, attempts=1)
    first, second = (shares(here.output, record.run_id) for record in (before, report.runs[0]))
    change = np.mean([np.abs(first[key] - second[key]).sum() / 2 for key in second])
    text = text_of(make_report(here.output, report.runs[0].run_id))
    assert f"{len(second)} of {len(second)} images had a mask then" in text
    assert f"at least {percent(float(change))} of each" in text


def test_an_incremental_run(site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    here = site()
    here.run()
    measured.clear()
    fill(here.photos, 5, size=(40, 56), start=20)
    report = here.run()
    assert (report.counts.images, report.selection.done) == (5, 14)
    check_everything(here, report, measured, capsys, attempts=1)


def test_a_run_of_which_everything_failed(
    site: MakeSite, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    here = site(images=0, broken=6)
    report = here.run()
    assert report.counts.error_rate == 1
    check_everything(here, report, measured, capsys, attempts=1)


def check_everything(
    here: Site, report: RunReport, measured: Measured, capsys: pytest.CaptureFixture[str], attempts: int
) -> None:
    (record,) = report.runs
    assert report.state == record.state == "finished"
    truth = truth_of(here.output, record.run_id)
    assert record.images == truth.images
    check_record(record, truth, attempts)
    check_terminal(report, {record.run_id: truth}, here.output)
    check_progress(here.heard, truth)
    check_runs(here.output, record.run_id, truth, capsys)
    check_report(here.output, record, truth)
    check_prefect(here.job, report, truth)
    check_prefects_progress(here.heard, truth)
    check_prometheus(measured, truth, is_undisturbed=attempts == 1)


def check_record(record: RunRecord, truth: Truth, attempts: int) -> None:
    assert record.counts == Counts(images=truth.images, ok=truth.ok, errors=truth.errors)
    assert len(record.attempts) == attempts
    assert sum(attempt.images for attempt in record.attempts) == truth.images
    ends = [(attempt.started, attempt.finished) for attempt in record.attempts]
    times = [(finished - started).total_seconds() for started, finished in ends if finished]
    assert len(times) == attempts
    assert record.seconds == pytest.approx(sum(times))
    assert record.images_per_second == pytest.approx(truth.images / sum(times))


def check_terminal(report: RunReport, truths: dict[str, Truth], output: Store) -> None:
    sink = io.StringIO()
    console.print_report(Console(file=sink, width=400), report, output.uri)
    for record in report.runs:
        truth = truths[record.run_id]
        line = next(line for line in sink.getvalue().splitlines() if record.run_id in line and " segmented" in line)
        assert f"{record.state}: {counted(truth.ok, 'image')} segmented" in line
        failed = sum(truth.errors.values())
        assert (f"{failed} error" in line and f"not_an_image {failed}" in line) if failed else "no errors" in line
        assert duration(record.seconds) in line
        assert f"{truth.images / record.seconds:.1f} images/s overall" in line
    told = console.report_json(report, output.uri)
    assert told["images"] == sum(truth.images for truth in truths.values())
    assert told["ok"] == sum(truth.ok for truth in truths.values())
    assert sum(told["errors"].values()) == told["images"] - told["ok"]
    assert told["error_rate"] == pytest.approx((told["images"] - told["ok"]) / told["images"])
    assert told["seconds"] == pytest.approx(sum(record.seconds for record in report.runs))
    assert told["overall_images_per_second"] == {
        record.run_id: pytest.approx(truths[record.run_id].images / record.seconds) for record in report.runs
    }
    if report.state == "finished":  # else it may have stopped before it listed anything
        listed = sum(1 for file in Path(report.runs[0].job["source"]).rglob("*") if file.is_file())
        assert told["listed"] == listed
        assert told["already_done"] + told["left_out"] + report.selection.selected == listed


def check_progress(heard: Heard, truth: Truth) -> None:
    assert heard.newest is not None
    assert (heard.newest.done, heard.newest.images) == (truth.images, truth.images)
    assert heard.newest.counts == Counts(images=truth.images, ok=truth.ok, errors=truth.errors)
    assert heard.shards[-1] == (truth.images, truth.images)


def check_runs(output: Store, run_id: str, truth: Truth, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert fcn(["runs", output.uri, "--json"]) == 0
    (told,) = (each for each in json.loads(capsys.readouterr().out) if each["run_id"] == run_id)
    assert told["counts"] == {"images": truth.images, "ok": truth.ok, "errors": truth.errors}
    assert told["seconds"] > 0
    assert told["overall_images_per_second"] == pytest.approx(truth.images / told["seconds"])
    assert fcn(["runs", output.uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = next(line.split() for line in lines if line.startswith(run_id))
    failed = sum(truth.errors.values())
    assert cells[2:6] == [str(told["images"]), str(truth.ok), str(failed), f"{told['overall_images_per_second']:.1f}"]
    if told["state"] != "running":
        fcn(["runs", "watch", output.uri, run_id])
        said = " ".join(capsys.readouterr().err.split())
        assert f"{truth.ok} of {counted(told['images'], 'image')} segmented" in said


def text_of(page: str) -> str:
    """What a reader sees of a page, words one space apart."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S))).split())


def check_report(output: Store, record: RunRecord, truth: Truth) -> None:
    page = make_report(output, record.run_id)
    text = text_of(page)
    failed = truth.images - truth.ok
    tiles = dict(re.findall(r'<dt>([^<]*)</dt><dd class="value">(?:<a[^>]*>)?([^<]*)<', page))
    assert tiles["images segmented" if truth.ok != 1 else "image segmented"] == count(truth.ok)
    assert tiles["failed"] == count(failed)
    assert unescape(tiles["images/s overall"]) == rate(truth.images / record.seconds)
    assert tiles["mean confidence"] == (f"{truth.confidence:.2f}" if truth.ok else "-")
    assert tiles["classes found"] == str(sum(1 for pixels in truth.pixels.values() if pixels))
    if failed:
        assert f"{percent(failed / truth.images)} of the run" in text
    for reason, images in truth.errors.items():
        assert f"{reason} {images} image" in text
    if not truth.ok:
        return
    for name, pixels in truth.pixels.items():
        cells = (count(pixels), percent(pixels / truth.all_pixels), count(truth.present[name]),
                 percent(truth.present[name] / truth.ok))  # fmt: skip
        assert f"{name} {' '.join(cells)}" in text


def check_prefect(job: SegmentJob, report: RunReport, truth: Truth) -> None:

    from flows import segment as flow  # Prefect makes its home folder when it is imported

    made: dict[str, Any] = {}

    def keep(content: Any, *, key: str, description: str) -> None:
        made[key] = (content, description)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "create_table_artifact", keep)
        patch.setattr(flow, "create_markdown_artifact", keep)
        summary = flow.publish.fn(job, report)
    assert (summary.counts.images, summary.counts.ok) == (truth.images, truth.ok)
    (record,) = report.runs
    rows, description = made["class-areas"]
    assert f"over {count(truth.ok)} images" in description
    assert {row["class"]: (row["pixels"], row["pixel share"], row["images"]) for row in rows} == {
        name: (
            count(pixels),
            percent(pixels / truth.all_pixels if truth.all_pixels else 0.0, 2),
            count(truth.present[name]),
        )
        for name, pixels in truth.pixels.items()
    }
    if truth.errors:
        assert {row["reason"]: row["images"] for row in made["errors"][0]} == truth.errors
    text, _ = made["summary"]
    assert f"# {count(truth.ok)} images segmented" in text
    assert f"- failed: {count(truth.images - truth.ok)} ({percent((truth.images - truth.ok) / truth.images)};" in text
    assert f"{count(truth.images)} images, {truth.images / record.seconds:.3g} images/s overall" in text


def check_prefects_progress(heard: Heard, truth: Truth) -> None:
    from flows import artifacts

    assert heard.newest is not None
    shown: list[tuple[float, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "get_run_logger", lambda: logging.getLogger("prefect"))
        patch.setattr(artifacts, "ARTIFACT_SECONDS", 0.0)
        patch.setattr(artifacts, "create_progress_artifact", lambda share, key, description: "artifact")
        patch.setattr(
            artifacts, "update_progress_artifact", lambda _, share, description: shown.append((share, description))
        )
        artifacts.JobObserver().progress(heard.newest)
    ((share, text),) = shown
    assert share == 100
    assert text.startswith(f"{truth.images} of {truth.images} images, {truth.images - truth.ok} failed; now ")


def check_prometheus(measured: Measured, truth: Truth, *, is_undisturbed: bool) -> None:
    assert measured.of(metrics.IMAGES, status="ok") == truth.ok
    assert measured.of(metrics.IMAGES, status="error") == truth.images - truth.ok
    for reason in metrics.REASONS:
        assert measured.of(metrics.ERRORS, reason=reason) == truth.errors.get(reason, 0)
    assert measured.of(metrics.PIXELS) == truth.all_pixels
    assert measured.of(metrics.SHARDS) == -(-truth.images // 4)
    if is_undisturbed:  # else images of a shard that was not committed were read twice
        assert measured.of(metrics.READ_BYTES) == truth.read_bytes
        assert measured.of(metrics.WRITTEN_BYTES) == truth.mask_bytes
    assert measured.of(metrics.RUN_IMAGES) == measured.of(metrics.RUN_IMAGES_DONE) == truth.images
    assert measured.of(metrics.RUN_SHARDS) == measured.of(metrics.RUN_SHARDS_DONE) == -(-truth.images // 4)


def shares(output: Store, run_id: str) -> dict[str, Any]:
    """What each class covers of each image of a run, float64 [classes], from the masks."""
    folder = Path(output.uri)
    files = sorted((folder / "results" / f"run_id={run_id}").glob("*.parquet"))
    found = {}
    for row in (row for file in files for row in pq.ParquetFile(file).read().to_pylist() if row["mask_key"]):
        mask = decode_mask((folder / row["mask_key"]).read_bytes())
        found[row["key"]] = np.bincount(mask.ravel(), minlength=LABELS.num_classes) / mask.size
    return found
