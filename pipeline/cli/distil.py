"""`fcn distil`: a large model's knowledge in a small one, from a job file and what the command line changes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, INTERRUPTED, Flag
from pipeline.cli.interrupts import stop_signals
from pipeline.cli.log_format import LogFormat
from pipeline.cli.log_format import use as use_log_format
from pipeline.cli.train import KINDS
from pipeline.jobs.distil import DECIDED, DistilJob
from pipeline.jobs.job_file import read_job_file
from pipeline.jobs.train import TrainJob, merged, optional

if TYPE_CHECKING:
    DistilOptions = DistilJob
else:
    DistilOptions = optional(DistilJob, student=optional(TrainJob, leave_out=DECIDED, **KINDS))


def distil(
    job: Path | None = None,
    *,
    options: Annotated[DistilOptions | None, Parameter(name="*", negative="")] = None,
    dry_run: Flag = False,
    prices: Path | None = None,
    json: Flag = False,
    log_format: LogFormat | None = None,
) -> int:
    """Train a small network on a large one's predictions for a sample, score it, and publish it to the registry.

    The same command again resumes what was stopped. Nothing is promoted.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    dry_run
        Say what both ways would take and cost: the teacher on all images; or the teacher on a sample, the training, and
        the student on all. Writes nothing.
    prices
        A table of prices (TOML) for --dry-run. Default: examples that come with the program.
    json
        Print the outcome as JSON on standard output.
    log_format
        How log lines look: text (key=value) or json. Default: FCN_LOG_FORMAT, else text.
    """
    from pipeline.cli import console
    from pipeline.cli.console_distil import print_estimate, print_report, report_json
    from pipeline.cli.console_retrain import observe
    from pipeline.distillation.job import DistilStopped
    from pipeline.distillation.job import distil as run_job

    use_log_format(log_format)
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = DistilJob.model_validate(merged(read_job_file(job), given))
    if dry_run:
        return print_estimate(described, prices, json=json)
    screen = console.stderr_console()
    try:
        with stop_signals() as stop, observe(screen) as observer:
            report = run_job(described, observer, stop.is_set)
    except DistilStopped as stopped:
        screen.print(str(stopped), markup=False)
        return INTERRUPTED
    print_report(screen, report)
    if json:
        console.print_json(report_json(report))
    return DONE
