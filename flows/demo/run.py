"""The demo, step by step: a bucket of street scenes, a small network trained on the spot, the flow run twice, a look.

The scenes' ground truth is known, so the masks that come back from the bucket are measured, not only looked at.
Nothing is downloaded.
"""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fcn_core.labels import Mask
from fcn_core.metrics import Scores
from flows.demo.bucket import (
    HELD_OUT_SEEDS,
    TRAINING_SEEDS,
    awkward_files,
    create_bucket,
    street_files,
    upload,
    upload_dataset,
)
from flows.demo.report import Findings, copy_images, copy_tables, draw_sheet, examine
from flows.demo.s3 import local_s3
from flows.demo.scenes import SCENE_LABELS
from flows.demo.steps import Step, Steps
from flows.demo.training import train_demo_model
from flows.environment import start_prefect
from pipeline.actors import cluster
from pipeline.data.check import check_dataset
from pipeline.errors import PipelineError, StorageError
from pipeline.exports.job import export_masks
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.segment import SegmentJob
from pipeline.models.load import open_model
from pipeline.numbers import duration
from pipeline.outputs import runs
from pipeline.storage.store import Store

if TYPE_CHECKING:
    from flows.segment import SegmentSummary


@dataclass(frozen=True)
class DemoPlan:
    """How large the demo is. The defaults take three to five minutes on two cores.

    `training_options` go to the training job, `options` to the labelling job.
    """

    output: Path = Path("demo-output")
    bucket: str = "street-scenes"
    scenes: int = 280
    added: int = 20
    training: range = TRAINING_SEEDS
    held_out: range = HELD_OUT_SEEDS
    training_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoReport:
    """What happened: the summaries of both flow runs, what was found in the bucket, where the sheet is."""

    first: "SegmentSummary"
    second: "SegmentSummary"
    held_out: Scores
    findings: Findings
    sheet: Path


def run_demo(plan: DemoPlan, console: Console, endpoint: str | None = None) -> DemoReport:
    """The whole demo, into `plan.output`, a folder that is there.

    With an `endpoint`, AWS_* point to an S3 server already, and none is started.
    """
    steps = Steps(console, 7)
    with ExitStack() as stack:
        with steps.step("Start an S3 server") as step:
            there = endpoint or stack.enter_context(local_s3())
            step.done(f"there is one already: {there}" if endpoint else f"{there}, its data in memory")
        with steps.step(f"Fill the bucket s3://{plan.bucket}/photos") as step:
            bucket = create_bucket(plan.bucket)
            source, output = bucket.at("photos"), bucket.at("labels")
            truth = _fill(plan, source, step)
        with steps.step("Put other scenes beside them, with masks to train on, and check them") as step:
            labelled = bucket.at("labelled")
            _put_dataset(plan, labelled, step)
        with steps.step("Train an FCN-8s on those, from scratch") as step:
            step.update(None, "starting Ray")
            stack.enter_context(cluster.connect())  # for all that follows
            model, held_out = _train(plan, labelled, bucket.at("training"), step)
        job = SegmentJob(source=source.uri, output=output.uri, model=model, **plan.options)
        with steps.step("Run the flow: everything is new") as step:
            first = _run_flow(job, output, step)
        with steps.step(f"Add {plan.added} images and run the flow again: only those are done") as step:
            truth |= upload(
                street_files(range(plan.scenes, plan.scenes + plan.added)),
                source,
                lambda done: step.update(done / plan.added, f"{done} of {plan.added} files uploaded"),
            )
            second = _run_flow(job, output, step)
        with steps.step("Compare the masks with the ground truth, and draw them") as step:
            run_ids = (*first.run_ids, *second.run_ids)
            findings = examine(output, run_ids, truth, SCENE_LABELS, lambda done: step.update(done, "reading masks"))
            step.update(None, "drawing and copying")
            sheet = plan.output / "contact-sheet.png"
            mean_iou = findings.scores.mean_iou or 0
            title = f"{len(findings.labelled)} scenes labelled by an FCN-8s, mean IoU {mean_iou:.2f}"
            draw_sheet(findings, source, SCENE_LABELS, title).save(sheet, optimize=True)
            export_masks(output.uri, str(plan.output / "masks"))
            copy_tables(output, plan.output / "tables")
            copy_images(source, _examples(findings), plan.output / "images")
            step.done(f"mean IoU {findings.scores.mean_iou or 0:.3f} over {len(findings.labelled)} images")
    return DemoReport(first, second, held_out, findings, sheet)


def _fill(plan: DemoPlan, source: Store, step: Step) -> dict[str, Mask]:
    """Put the photos into the bucket; returns the ground truth by key."""
    files = [*awkward_files()]
    count = len(files) + plan.scenes
    truth = upload(files, source, lambda done: None)
    truth |= upload(
        street_files(range(plan.scenes)),
        source,
        lambda done: step.update((len(files) + done) / count, f"{len(files) + done} of {count} files"),
    )
    awkward = ", ".join(file.comment for file in files)
    step.done(f"{plan.scenes} street scenes and {len(files)} awkward files: {awkward}")
    return truth


def _put_dataset(plan: DemoPlan, labelled: Store, step: Step) -> None:
    """Put the training set into the bucket and look through it, as everybody should before training."""
    count = len(plan.training) + len(plan.held_out)
    upload_dataset(
        {"train": plan.training, "val": plan.held_out},
        labelled,
        lambda done: step.update(done / count, f"{done} of {count} scenes"),
    )
    report = check_dataset(
        DatasetOptions(dataset=labelled.uri), on_image=lambda done, total: step.update(done / total, "checking")
    )
    if not report.ok:
        found = report.problems[0]
        raise PipelineError(f"the demo's own data set has a fault ({found.kind}: {found.examples[0]}); report it")
    splits = " and ".join(f"{split.usable} in split {split.name}" for split in report.splits)
    step.done(f"{labelled.uri}, in PASCAL VOC's layout: {splits}, nothing wrong with them")


def _train(plan: DemoPlan, labelled: Store, output: Store, step: Step) -> tuple[str, Scores]:
    """Train, keep a copy of the best model, and say how good it is on scenes that it has not learned from.

    Returns where in the bucket the model is, and its scores.
    """
    report = train_demo_model(labelled.uri, output.uri, plan.training_options, step)
    assert report.model_uri
    assert report.scores
    open_model(report.model_uri).bundle.save(plan.output / "model")
    step.done(
        f"{report.steps} steps in {duration(report.seconds)}; mean IoU {report.scores.mean_iou or 0:.3f} on "
        f"{len(plan.held_out)} held-out scenes; model {report.model_id}"
    )
    return report.model_uri, report.scores


def _run_flow(job: SegmentJob, output: Store, step: Step) -> "SegmentSummary":
    """One run of the flow, watched through the progress that it writes to the bucket."""
    step.update(None, "starting Prefect")
    start_prefect()
    from flows.segment import segment

    finished = threading.Event()
    before = {record.run_id for record in runs.records(output)}

    def watch() -> None:
        while not finished.wait(1.0):
            try:
                new = next((record for record in runs.records(output) if record.run_id not in before), None)
                progress = runs.read_progress(output, new.run_id) if new else None
            except StorageError:
                continue
            if progress:
                done = f"{progress.done} of {progress.images} images, {progress.images_per_second:.0f} images/s"
                step.update(progress.done / progress.images, done)
            else:
                step.update(None, "starting Ray's actors" if new else "checking inputs")

    watcher = threading.Thread(target=watch, name="watch", daemon=True)
    watcher.start()
    try:
        summary: SegmentSummary = segment(job)
    finally:
        finished.set()
        watcher.join()
    counts = summary.counts
    step.done(f"{counts.ok} images segmented, {counts.failed} refused, {summary.already_done} were done already")
    return summary


def _examples(findings: Findings) -> list[str]:
    """Images worth trying `fcn preview` on: those uploaded, and the first scene."""
    keys = [item.key for item in findings.labelled]
    return [key for key in keys if key.startswith("uploads/")] + keys[:1]
