"""The retraining flow: `pipeline.retraining.job` step by step, each a task, with what it found as artifacts.

Running the flow again is safe at any point: training goes on where it ended, and what was promoted is not promoted
again. A run that fails or is cancelled promotes nothing.
"""

import base64
from collections.abc import Mapping
from functools import partial

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from prefect.states import Cancelled
from pydantic import BaseModel, ConfigDict

from fcn_core.training.loop import History
from flows.artifacts import CancelWatch, ProgressArtifact, as_task, fraction, refuse_relative_places, show_launch
from flows.events import champion_promoted
from flows.form import RetrainForm
from flows.markdown import block, code, plain
from flows.segment import SegmentSummary, segment
from pipeline.data.report import DataReport, describe
from pipeline.jobs.launch import HERE, Here, Launch
from pipeline.launch.jobs import LaunchStopped, evaluate_on, train_on
from pipeline.logfmt import key_values
from pipeline.retraining.contest import Contest
from pipeline.retraining.job import JOBS_HERE, Jobs, RetrainReport, RetrainStopped, challenge
from pipeline.retraining.observer import RetrainObserver
from pipeline.training.curves import draw_curves
from pipeline.training.report import TrainReport

VALIDATIONS_LISTED = 12


class RetrainSummary(BaseModel):
    """What the flow returns. `promotion`: the number under which the version is champion now, None if it is not."""

    model_config = ConfigDict(frozen=True)

    run: str
    registry_name: str
    version: str
    promoted: bool
    promotion: int | None
    reason: str
    mean_iou: float | None
    champion_mean_iou: float | None
    relabelled: SegmentSummary | None = None


@flow(name="retrain", validate_parameters=True)
def retrain(job: RetrainForm, launch: Launch = HERE) -> RetrainSummary:
    """Train a challenger, promote it if it beats the champion, and have it label what `job.relabel` says. Training,
    scoring and labelling run here, or where `launch` says.

    Fails, with the reason in its first line, when anything goes wrong; a challenger that loses is no failure.

    Args:
        job: What to train on, and what it takes to win.
        launch: Where training, scoring and labelling run.
    """
    refuse_relative_places(job)
    observer = _FlowObserver()
    try:
        report = challenge(job.dated(flow_run.scheduled_start_time), observer, CancelWatch(), as_task, jobs_on(launch))
    except (RetrainStopped, LaunchStopped) as stopped:
        return Cancelled(message=str(stopped))  # type: ignore[return-value]
    as_task("publish verdict", lambda: _publish_verdict(report))
    observer.finish()
    contest = report.contest
    if report.promoted and report.promotion is not None:
        before = contest.champion.version if contest.champion is not None else None
        champion_promoted(report.registry_name, contest.version, report.promotion, contest.verdict.reason, before)
    return RetrainSummary(
        run=report.trained.uri,
        registry_name=report.registry_name,
        version=contest.version,
        promoted=report.promoted,
        promotion=report.promotion,
        reason=contest.verdict.reason,
        mean_iou=contest.verdict.challenger,
        champion_mean_iou=contest.verdict.champion,
        # A flow run of its own, with the artifacts of any labelling.
        relabelled=segment(report.relabelling, launch=launch) if report.relabelling is not None else None,
    )


def jobs_on(launch: Launch) -> Jobs:
    """What trains and scores where `launch` says."""
    if isinstance(launch, Here):
        return JOBS_HERE
    return Jobs(
        partial(train_on, launch, on_launch=show_launch),
        partial(evaluate_on, launch, on_launch=show_launch),
        elsewhere=True,
    )


class _FlowObserver(RetrainObserver):
    """Notes to the run's log, progress and findings to artifacts."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._progress = ProgressArtifact()

    def note(self, text: str) -> None:
        self._log.info("%s", key_values(note=text))

    def progress(self, share: float | None, text: str) -> None:
        if share is None:
            self._log.info("%s", key_values(phase=text))
        self._progress.update(share or 0.0, text)

    def checked(self, report: DataReport) -> None:
        create_markdown_artifact(
            block(describe(report)), key="data", description=f"Data check of {plain(report.dataset)}"
        )

    def trained(self, report: TrainReport, histories: Mapping[str, History]) -> None:
        text = _curves_text(report, histories)
        create_markdown_artifact(text, key="curves", description=f"Loss and validation of {plain(report.name)}")

    def judged(self, contest: Contest) -> None:
        create_table_artifact(
            [
                {
                    "class": plain(row.name),
                    "champion": fraction(row.champion),
                    "challenger": fraction(row.challenger),
                    "difference": fraction(row.difference, "+"),
                    "falls too far": "yes" if row.falls else "",
                }
                for row in contest.verdict.rows
            ],
            key="scores",
            description=f"IoU of each class on split {plain(contest.split)}, champion against challenger",
        )

    def finish(self) -> None:
        self._progress.finish("done")


def _publish_verdict(report: RetrainReport) -> None:
    create_markdown_artifact(
        _verdict_text(report), key="verdict", description=f"Retraining {plain(report.registry_name)}"
    )


def _verdict_text(report: RetrainReport) -> str:
    contest, verdict = report.contest, report.contest.verdict
    name = report.registry_name
    again = "Nothing to promote" if report.promotion is not None else "Not promoted"
    lines = [f"# {'Promoted' if report.promoted else again}: {plain(verdict.reason)}", ""]
    if report.promotion is not None:
        lines.append(f"- `registry:{name}@champion` is version `{contest.version}` now, promotion {report.promotion}")
    else:
        lines.append(f"- published, to be looked at: `registry:{name}@{contest.version}`")
    if contest.champion is not None:
        lines.append(f"- held against version `{contest.champion.version}`, promotion {contest.champion.number}")
    record = contest.challenger_scores
    lines += [
        f"- scored on {record.examples} examples of split {code(contest.split)} of {code(record.dataset)}",
        f"- training: {code(report.trained.uri)}",
        f"- scores of each image, and the worst ones drawn: {code(f'{report.trained.uri}/evaluation')}",
        "",
        "| | champion | challenger |",
        "|---|---|---|",
    ]
    old = contest.champion_scores.scores if contest.champion_scores else None
    for title, field in (
        ("mean IoU", "mean_iou"),
        ("pixel accuracy", "pixel_accuracy"),
        ("mean accuracy", "mean_accuracy"),
        ("frequency-weighted IoU", "frequency_weighted_iou"),
    ):
        lines.append(f"| {title} | {fraction(getattr(old, field, None))} | {fraction(getattr(record.scores, field))} |")
    return "\n".join(lines)


def _curves_text(report: TrainReport, histories: Mapping[str, History]) -> str:
    """The curves as a picture inside the text, which Prefect's pages show, and the last validations as a table."""
    picture = base64.b64encode(draw_curves(histories).encode()).decode()
    lines = [f"![loss and validation mean IoU over epochs](data:image/svg+xml;base64,{picture})", ""]
    lines += [f"{report.steps} steps, {report.seconds:.0f} s of training; {code(report.uri)} has the model.", ""]
    rows = [(stage, point) for stage, history in histories.items() for point in history.validations]
    if rows:
        lines += ["| network | step | epoch | mean IoU | pixel accuracy |", "|---|---|---|---|---|"]
    lines += [
        f"| {stage} | {point.step} | {point.epoch:.4g} | {fraction(point.scores.mean_iou)} | "
        f"{fraction(point.scores.pixel_accuracy)} |"
        for stage, point in rows[-VALIDATIONS_LISTED:]
    ]
    return "\n".join(lines)
