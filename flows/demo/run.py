"""The demo, step by step: a bucket of street scenes, a small network trained on the spot, the flow run twice, a look.

The scenes' ground truth is known, so the masks that come back from the bucket are measured, not only looked at.
Nothing is downloaded.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fcn_core.metrics import Scores
from fcn_core.train_config import TrainConfig
from fcn_core.trainer import StepReport
from flows.demo.bucket import awkward_files, create_bucket, street_files, upload
from flows.demo.model import HELD_OUT_SEEDS, TRAINING_SEEDS, demo_dataset, train_demo_model
from flows.demo.report import Findings, copy_images, copy_tables, draw_sheet, examine
from flows.demo.s3 import local_s3
from flows.demo.scenes import SCENE_LABELS
from flows.demo.steps import Step, Steps
from flows.environment import start_prefect
from pipeline import runs
from pipeline.console import duration
from pipeline.errors import StorageError
from pipeline.export import export_masks
from pipeline.job_options import SegmentJob
from pipeline.storage import Store

if TYPE_CHECKING:
    from flows.segment import SegmentSummary


@dataclass(frozen=True)
class DemoPlan:
    """How large the demo is. The defaults take three to five minutes on two cores.

    `options` go to the labelling job; `config` is the training, DEMO_TRAINING if None.
    """

    output: Path = Path("demo-output")
    bucket: str = "street-scenes"
    scenes: int = 280
    added: int = 20
    training: range = TRAINING_SEEDS
    held_out: range = HELD_OUT_SEEDS
    config: TrainConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)


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
    steps = Steps(console, 6)
    with _storage(steps, endpoint):
        with steps.step(f"Fill the bucket s3://{plan.bucket}/photos") as step:
            store = create_bucket(plan.bucket)
            source, output = store.at("photos"), store.at("labels")
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
        with steps.step("Train an FCN-8s from scratch, on other scenes") as step:
            model, held_out = _train(plan, step)
        job = SegmentJob(source=source.uri, output=output.uri, model=str(model), **plan.options)
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
            title = f"{len(findings.labelled)} scenes labelled by an FCN-8s, mean IU {findings.scores.mean_iu or 0:.2f}"
            draw_sheet(findings, source, SCENE_LABELS, title).save(sheet, optimize=True)
            export_masks(output.uri, str(plan.output / "masks"))
            copy_tables(output, plan.output / "tables")
            copy_images(source, _examples(findings), plan.output / "images")
            step.done(f"mean IU {findings.scores.mean_iu or 0:.3f} over {len(findings.labelled)} images")
    return DemoReport(first, second, held_out, findings, sheet)


@contextmanager
def _storage(steps: Steps, endpoint: str | None) -> Iterator[None]:
    """An S3 server for as long as it lasts: the one at `endpoint`, else a new one."""
    with ExitStack() as stack:
        with steps.step("Start an S3 server") as step:
            if endpoint:
                step.done(f"there is one already: {endpoint}")
            else:
                step.done(f"{stack.enter_context(local_s3())}, its data in memory")
        yield


def _train(plan: DemoPlan, step: Step) -> tuple[Path, Scores]:
    """Train, save the bundle, and say how good the model is on scenes that it has not seen."""
    count = len(plan.training) + len(plan.held_out)
    training = demo_dataset(plan.training, lambda done: step.update(done / count, "painting scenes to train on"))
    held_out = demo_dataset(
        plan.held_out, lambda done: step.update((len(training) + done) / count, "painting scenes to test on")
    )
    report: StepReport | None = None

    def progress(now: StepReport) -> None:
        nonlocal report
        report = now
        step.update(now.progress, f"step {now.step}, loss {now.loss:.2f}, {now.images_per_second:.0f} images/s")

    bundle, scores = train_demo_model(training, held_out, progress, plan.config)
    model = plan.output / "model"
    bundle.save(model)
    assert report
    step.done(
        f"{report.step} steps in {duration(report.seconds)}; mean IU {scores.mean_iu or 0:.3f} on "
        f"{len(held_out)} held-out scenes; model {bundle.model_id}"
    )
    return model, scores


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
    step.done(f"{counts.ok} images labelled, {counts.failed} refused, {summary.already_done} were done already")
    return summary


def _examples(findings: Findings) -> list[str]:
    """Images worth trying `fcn preview` on: those uploaded, and the first scene."""
    keys = [item.key for item in findings.labelled]
    return [key for key in keys if key.startswith("uploads/")] + keys[:1]
