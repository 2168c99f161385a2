"""The labelling flow: prepare -> run -> publish. Thin: the job is complete in itself, the flow makes it visible.

What makes a re-run safe is how the output is laid out, not Prefect's cache: a retried or restarted flow resumes where
the storage says. There is one task for the whole run, never one an image or shard.
"""

import time
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from pipeline.errors import PipelineError
from pipeline.job import Observer, RunReport
from pipeline.job import segment as run_job
from pipeline.job_options import SegmentJob
from pipeline.prepare import check_inputs
from pipeline.results import read_class_totals
from pipeline.runs import Counts, Progress
from pipeline.segmenter import ShardOutcome
from pipeline.storage import open_store

ARTIFACT_SECONDS = 2.0
"""How often the progress artifact is brought up to date."""


class TooManyErrors(PipelineError):
    """The run is complete, but more of its images failed than the job allows."""


class SegmentSummary(BaseModel):
    """What the flow returns: enough to find everything else under `output`."""

    model_config = ConfigDict(frozen=True)

    output: str
    run_ids: tuple[str, ...]
    counts: Counts
    already_done: int


@flow(name="segment", validate_parameters=True)
def segment(job: SegmentJob) -> SegmentSummary:
    """Label what is new under `job.source`. Fails, with the reason in its first line, when too many images do."""
    prepare(job)
    report = run(job)
    summary = publish(job, report)
    if report.too_many_errors:
        raise TooManyErrors(
            f"{report.counts.error_rate:.1%} of {report.counts.images} images failed, more than max_error_rate "
            f"{job.max_error_rate:.1%} allows; see the errors artifact"
        )
    return summary


@task(cache_policy=NO_CACHE)
def prepare(job: SegmentJob) -> None:
    """Check model, source and output, so that what cannot work fails at once and by name."""
    inputs = check_inputs(job)
    get_run_logger().info(
        "source=%s output=%s model_id=%s", inputs.source.uri, inputs.output.uri, inputs.bundle.model_id
    )


@task(cache_policy=NO_CACHE)
def run(job: SegmentJob) -> RunReport:
    """Do the job, from plan to tables, with its progress as an artifact."""
    observer = _FlowObserver()
    report = run_job(job, observer)
    if report.state != "finished":
        raise PipelineError("the run was stopped; running the flow again resumes it")
    observer.finish()
    return report


@task(cache_policy=NO_CACHE)
def publish(job: SegmentJob, report: RunReport) -> SegmentSummary:
    """Put the outcome where people look: class areas and errors as tables, a summary as text."""
    summary = SegmentSummary(
        output=job.output,
        run_ids=tuple(record.run_id for record in report.runs),
        counts=report.counts,
        already_done=report.selection.done,
    )
    output = open_store(job.output)
    for record in report.runs:
        create_table_artifact(
            [
                {
                    "class": total.class_name,
                    "pixels": total.pixels,
                    "share": f"{total.fraction:.2%}",
                    "images": total.images,
                }
                for total in read_class_totals(output, record.run_id)
            ],
            key="class-areas",
            description=f"Area of each class in run {record.run_id}",
        )
    if report.counts.errors:
        create_table_artifact(
            [{"reason": reason, "images": count} for reason, count in report.counts.errors.items()],
            key="errors",
            description="Images that could not be labelled, by reason",
        )
    create_markdown_artifact(_summary_text(summary, report), key="summary", description=f"Labelling {job.output}")
    return summary


class _FlowObserver(Observer):
    """Phases, notes and shards to the run's log; progress to an artifact."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._artifact: Any = None
        self._updated = time.monotonic()
        self._publish(0.0, "starting")

    def phase(self, name: str) -> None:
        self._log.info("phase=%s", name)

    def note(self, text: str) -> None:
        self._log.info("%s", text)

    def progress(self, progress: Progress) -> None:
        # Asked several times a second; the server need not hear of each.
        now = time.monotonic()
        if now - self._updated >= ARTIFACT_SECONDS:
            self._updated = now
            self._publish(100.0 * progress.done / progress.images, f"{progress.done} of {progress.images} images")

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        self._log.info(
            "run=%s shard=%d images=%d ok=%d errors=%s done=%d/%d",
            run_id,
            outcome.shard,
            outcome.images,
            outcome.ok,
            dict(outcome.errors),
            done,
            images,
        )

    def finish(self) -> None:
        self._publish(100.0, "all images done")

    def _publish(self, percent: float, text: str) -> None:
        # A server that is away for a moment is no reason to end a run of hours.
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(percent, key="progress", description=text)
            else:
                update_progress_artifact(self._artifact, percent, description=text)
        except Exception as error:
            self._log.warning("the progress artifact could not be written: %s", error)


def _summary_text(summary: SegmentSummary, report: RunReport) -> str:
    counts = summary.counts
    lines = [
        f"# {counts.ok} images labelled",
        "",
        f"- output: `{summary.output}`",
        f"- runs: {', '.join(f'`{run_id}`' for run_id in summary.run_ids) or 'none, nothing was new'}",
        f"- done already: {summary.already_done}",
        f"- failed: {counts.failed} ({counts.error_rate:.2%}; {report.max_error_rate:.2%} are allowed)",
    ]
    lines += [f"- run `{record.run_id}`: {record.images_per_second:.2f} images/s" for record in report.runs]
    return "\n".join(lines)
