"""`fcn retrain`: from new data to a new champion, from a job file and what the command line changes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, INTERRUPTED, TOO_MANY_ERRORS, Flag
from pipeline.cli.interrupts import stop_signals
from pipeline.cli.log_format import LogFormat
from pipeline.cli.log_format import use as use_log_format
from pipeline.cli.train import KINDS
from pipeline.jobs.job_file import read_job_file
from pipeline.jobs.retrain import RelabelJob, RetrainJob
from pipeline.jobs.train import merged, optional

if TYPE_CHECKING:
    RetrainOptions = RetrainJob
else:
    RetrainOptions = optional(RetrainJob, relabel=RelabelJob, **KINDS)


def retrain(
    job: Path | None = None,
    *,
    options: Annotated[RetrainOptions | None, Parameter(name="*", negative="")] = None,
    json: Flag = False,
    log_format: LogFormat | None = None,
) -> int:
    """Train a challenger, score it and the champion on the same images, and promote it if it is better.

    The same command again resumes what was stopped, and never promotes the same model twice. A challenger that loses
    is published and not promoted; that is no failure. {date} in the run's name is today, in UTC.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    json
        Print the outcome as JSON on standard output.
    log_format
        How log lines look: text (key=value) or json. Default: FCN_LOG_FORMAT, else text.
    """
    from pipeline.cli import console
    from pipeline.cli.console_retrain import observe, print_report, report_json
    from pipeline.retraining.job import RelabellingFailed, RetrainStopped
    from pipeline.retraining.job import retrain as run_job

    use_log_format(log_format)
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = RetrainJob.model_validate(merged(read_job_file(job), given))
    screen = console.stderr_console()
    try:
        with stop_signals() as stop, observe(screen) as observer:
            report = run_job(described, observer, stop.is_set)
    except RetrainStopped as stopped:
        screen.print(str(stopped), markup=False)
        return INTERRUPTED
    except RelabellingFailed as error:
        print_report(screen, error.report)
        if json:
            console.print_json(report_json(error.report))
        raise
    print_report(screen, report)
    if json:
        console.print_json(report_json(report))
    labelled = report.relabelled
    if labelled is not None and labelled.state == "interrupted" and not labelled.aborted:
        return INTERRUPTED
    return TOO_MANY_ERRORS if labelled is not None and labelled.failed_gate else DONE
