"""The other end of a launch: `python -P -m pipeline run-launch LAUNCH_ID WORK`, on a node of the cluster.

Whoever launched it may be gone; so the outcome is written under the job's output. Stopped by SIGTERM or SIGINT, the
job ends resumably.
"""

import sys
from collections.abc import Callable
from typing import Any

import pydantic

from fcn_core.errors import FcnError
from pipeline.cli import console, console_train
from pipeline.cli.common import BAD_INPUT, DONE, FAILED, INTERRUPTED, error_text, validation_message
from pipeline.cli.interrupts import stop_signals
from pipeline.errors import InputError, PipelineError
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import SegmentJob
from pipeline.launch.work import Outcome, Work, dump, write_outcome

EXIT_CODES = {"finished": DONE, "failed": FAILED, "refused": BAD_INPUT, "interrupted": INTERRUPTED}


def run_launch(launch_id: str, work: str) -> int:
    """Do the work that was launched, write its outcome, and return the exit code.

    Parameters
    ----------
    launch_id
        The name of the launch.
    work
        What to do, as JSON.
    """
    return _run(launch_id, Work.model_validate_json(work))


def _run(launch_id: str, work: Work) -> int:
    try:
        with stop_signals() as stop:
            outcome = _do(work, stop.is_set)
    except pydantic.ValidationError as error:
        outcome = Outcome(state="refused", message=validation_message(error))
    except (InputError, FcnError) as error:
        outcome = Outcome(state="refused", message=str(error), report=_broken(error))
    except PipelineError as error:
        outcome = Outcome(state="failed", message=str(error))
    except KeyboardInterrupt:
        outcome = Outcome(state="interrupted", message="the job was stopped; the same work resumes it")
    except Exception as error:
        outcome = Outcome(state="failed", message=f"{type(error).__name__}: {error}")
        write_outcome(work, launch_id, outcome)
        raise
    if outcome.message:
        print(error_text("fcn", outcome.message), file=sys.stderr)
    write_outcome(work, launch_id, outcome)
    return EXIT_CODES[outcome.state]


def _do(work: Work, should_stop: Callable[[], bool]) -> Outcome:
    job = work.job()
    screen = console.stderr_console()
    report: Any
    if isinstance(job, SegmentJob):
        from pipeline.segmentation.job import segment
        from pipeline.segmentation.run_report import RunReport

        with console.observe(screen) as observer:
            report = segment(job, observer, should_stop)
        return _outcome(report.state, dump(report, RunReport))
    if isinstance(job, EvaluateJob):
        from pipeline.evaluation.job import EvaluationStopped, evaluate

        try:
            with console.observe(screen) as observer:
                report = evaluate(job, observer, should_stop)
        except EvaluationStopped as error:
            return Outcome(state="interrupted", message=str(error))
        return _outcome("finished", report.record.model_dump(mode="json"))
    from pipeline.training.job import train
    from pipeline.training.report import TrainReport

    with console_train.observe(screen) as trained:
        report = train(job, trained, should_stop)
    return _outcome(report.state, dump(report, TrainReport))


def _outcome(state: str, report: dict[str, Any]) -> Outcome:
    if state == "finished":
        return Outcome(state="finished", report=report)
    return Outcome(state="interrupted", message="the job was stopped; the same work resumes it", report=report)


def _broken(error: Exception) -> dict[str, Any] | None:
    """The examples that an evaluation could not score, for whoever lists them."""
    from pipeline.evaluation.job import BrokenExamples

    if not isinstance(error, BrokenExamples):
        return None
    return {"broken": [example.model_dump(mode="json") for example in error.errors]}
