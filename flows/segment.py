"""The labelling flow: prepare -> run -> publish. Thin: the job is complete in itself, the flow makes it visible.

What makes a re-run safe is how the output is laid out, not Prefect's cache: a retried or restarted flow resumes where
the storage says. There is one task for the whole run, never one per image or shard.
"""

import shlex
from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled
from pydantic import BaseModel, ConfigDict, Field

from flows.artifacts import WHILE_AWAY, CancelWatch, JobObserver, link_to, refuse_relative_places, show_launch
from flows.form import SegmentForm
from flows.markdown import code, plain
from pipeline.errors import PipelineError
from pipeline.insight.compare import compare
from pipeline.jobs.launch import HERE, Here, Launch
from pipeline.jobs.segment import SegmentJob
from pipeline.launch.jobs import LaunchStopped, segment_on
from pipeline.logfmt import key_values
from pipeline.numbers import differing, differing_percent, fixed, percent, three_digits
from pipeline.outputs.results import read_class_totals
from pipeline.outputs.runs import Counts, records
from pipeline.segmentation.prepare import check_places
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store

STOPPED = "the run was stopped; running the flow again resumes it"

MASKS_TO_COMPARE = 200
"""Pairs of masks that the gate looks at: what it judges are the areas, which the tables hold."""


class TooManyErrors(PipelineError):
    """The run is complete, but more of its images failed than the job allows."""


class TooMuchShift(PipelineError):
    """The run is complete, but its class areas lie further from those of the run before than the flow allows."""


class SegmentSummary(BaseModel):
    """What the flow returns: enough to find everything else under `output`."""

    model_config = ConfigDict(frozen=True)

    output: str
    run_ids: tuple[str, ...]
    counts: Counts
    already_done: int


def _run_name() -> str:
    """What a list of runs shows instead of a random name."""
    job = flow_run.parameters.get("job")  # as it was sent, or already a model
    asked = job.model_dump() if isinstance(job, SegmentJob) else job
    # What is no job at all is refused right after.
    return f"{asked.get('source')} to {asked.get('output')}" if isinstance(asked, dict) else "segment"


@flow(name="segment", flow_run_name=_run_name, validate_parameters=True)
def segment(
    job: SegmentForm,
    compare_limit: Annotated[float | None, Field(ge=0, le=1)] = None,
    launch: Launch = HERE,
) -> SegmentSummary:
    """Label what is new under `job.source`, here or where `launch` says. Fails, with the reason in its first line, when
    too many images do.

    Args:
        job: What to label, and how.
        compare_limit: Fail as well when the class areas have shifted by more than this since the run before: the
            Jensen-Shannon divergence that `fcn compare` measures, in bits, 0 to 1. Default: never.
        launch: Where the job runs.
    """
    refuse_relative_places(job)
    if isinstance(launch, Here):
        prepare(job)
    try:
        report = run(job, launch)
    except LaunchStopped:
        return Cancelled(message=STOPPED)  # type: ignore[return-value]
    if report.aborted:
        raise TooManyErrors(f"{report.aborted}; running the flow again resumes it")
    if report.state != "finished":
        return Cancelled(message=STOPPED)  # type: ignore[return-value]
    summary = publish(job, report)
    if report.failed_gate:
        raise TooManyErrors(f"{report.failed_gate}; see the errors artifact")
    if compare_limit is not None:
        check_shift(job, report, compare_limit)
    return summary


@task(cache_policy=NO_CACHE)
def prepare(job: SegmentJob) -> None:
    """Check source and output, so that what cannot work fails at once and by name. The model is opened by `run`."""
    source, output = check_places(
        job, job.key_list, where=job.where, allow_empty=job.allow_empty, follow_links=job.follow_links
    )
    get_run_logger().info("%s", key_values(source=source.uri, output=output.uri))


@task(cache_policy=NO_CACHE, **WHILE_AWAY)
def run(job: SegmentJob, launch: Launch) -> RunReport:
    """Do the job, from plan to tables, with its progress as an artifact. A retry finds the job that runs elsewhere."""
    observer = JobObserver()
    report = segment_on(launch, job, observer, CancelWatch(), show_launch)
    if report.state == "finished":
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
                    "class": plain(total.class_name),
                    "pixel share": percent(total.fraction, 2),
                    "pixels": f"{total.pixels:,}",
                    "images": f"{total.images:,}",
                }
                for total in sorted(read_class_totals(output, record.run_id), key=lambda total: -total.pixels)
            ],
            key="class-areas",
            description=f"Area of each class over {record.counts.ok:,} images of run {plain(record.run_id)}, "
            "largest first",
        )
    if report.counts.errors:
        create_table_artifact(
            [{"reason": plain(reason), "images": count} for reason, count in report.counts.errors.items()],
            key="errors",
            description="Images that could not be labelled, by reason",
        )
    create_markdown_artifact(
        _summary_text(summary, report), key="summary", description=f"Labelling {plain(job.output)}"
    )
    return summary


@task(cache_policy=NO_CACHE)
def check_shift(job: SegmentJob, report: RunReport, limit: float) -> None:
    """Compare the newest run with the one before it. Passes when there is none, or nothing was new."""
    output = open_store(job.output)
    finished = [record for record in records(output) if record.state == "finished" and record.counts.ok]
    if not report.runs or len(finished) < 2 or finished[0].run_id != report.runs[-1].run_id:
        get_run_logger().info("there are no two runs to compare")
        return
    found = compare(output, finished[1].run_id, finished[0].run_id, masks=MASKS_TO_COMPARE)
    shift = found.shift
    text = (
        f"the class areas of run {found.second.run_id} lie {fixed(shift.value)} from those of {found.first.run_id} "
        f"(95 % interval {fixed(shift.low)} to {fixed(shift.high)}; chance alone about {fixed(shift.chance)})"
    )
    get_run_logger().info("%s", text)
    create_table_artifact(
        [
            {
                "class": plain(change.class_name),
                "mean share before": percent(change.mean_share_before, 2),
                "mean share after": percent(change.mean_share_after, 2),
            }
            for change in sorted(
                found.classes, key=lambda change: -abs(change.mean_share_after - change.mean_share_before)
            )
        ],
        key="shift",
        description=plain(text),
    )
    if shift.value > limit:
        shifted, allowed = differing(shift.value, limit, fixed)
        raise TooMuchShift(
            f"{text}: {shifted} is more than compare_limit {allowed} allows; `fcn compare` shows the images"
        )


def _summary_text(summary: SegmentSummary, report: RunReport) -> str:
    counts = summary.counts
    failed, allowed = differing_percent(counts.error_rate, report.max_error_rate)
    lines = [
        f"# {counts.ok:,} images segmented" if report.runs else "# Nothing was new",
        "",
        f"- output: {code(summary.output)}",
        f"- failed: {counts.failed:,} ({failed}; {allowed} are allowed)",
        f"- done already: {summary.already_done:,}",
    ]
    lines += [
        f"- run {code(record.run_id)}: {record.counts.images:,} images, "
        f"{three_digits(record.images_per_second)} images/s overall, by model {code(record.model_id)}"
        + (f" ({plain(record.model)})" if record.model else "")
        for record in report.runs
    ]
    for key in report.reports:
        run_id = key.split("/")[1]
        copy = f"fcn report {shlex.quote(summary.output)} {run_id} --file {run_id}.html"
        lines.append(f"- report: {link_to(summary.output, key)}; a copy on your machine: {code(copy)}")
    lines += ["", "To look at it: " + code(f"fcn runs {shlex.quote(summary.output)}")]
    return "\n".join(lines)
