"""`fcn train`: a job file and what the command line changes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from pipeline.cli.common import DONE, INTERRUPTED, Flag
from pipeline.cli.interrupts import stop_signals
from pipeline.cli.log_format import LogFormat
from pipeline.cli.log_format import use as use_log_format
from pipeline.jobs.job_file import read_job_file
from pipeline.jobs.train import TrainJob, merged, optional

KINDS: dict[str, Any] = {
    "workers": str,
    "staged": Annotated[bool, Parameter(negative="--no-staged")],
    "check_data": Annotated[bool, Parameter(negative="--no-check-data")],
    "use_gpu": Annotated[bool, Parameter(negative="--no-use-gpu")],
}
"""The options of a training that the command line takes in another form than a job file does."""

if TYPE_CHECKING:
    TrainJobOptions = TrainJob
else:
    TrainJobOptions = optional(TrainJob, **KINDS)


def train(
    job: Path | None = None,
    *,
    options: Annotated[TrainJobOptions | None, Parameter(name="*", negative="")] = None,
    dry_run: Flag = False,
    cross_validate: int | None = None,
    folds_by: str | None = None,
    json: Flag = False,
    log_format: LogFormat | None = None,
) -> int:
    """Train a network on annotated images, on one machine or many.

    The same command again resumes a run that was stopped, or whose machine died; a finished one has nothing to do.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    dry_run
        Check everything, try three steps, say what would be trained on what, how long and in how much memory. Writes
        nothing.
    cross_validate
        Cut train_split into so many folds and train once for each, validated on the fold that is left out; val_split
        takes no part. The runs are kept under output/name, and the same command resumes them.
    folds_by
        What a cross-validation keeps together: image (nothing), folder, prefix, or a column of the manifest. Default:
        image.
    json
        Print the outcome as JSON on standard output.
    log_format
        How log lines look: text (key=value) or json. Default: FCN_LOG_FORMAT, else text.
    """
    from dataclasses import asdict

    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.cli.console_folds import folds_json, print_folds
    from pipeline.cli.console_train import observe, print_report, report_json
    from pipeline.errors import InputError
    from pipeline.training.cross_validation import cross_validate as run_folds
    from pipeline.training.dry_run import describe
    from pipeline.training.dry_run import dry_run as try_job
    from pipeline.training.job import train as run_job

    use_log_format(log_format)
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = TrainJob.model_validate(merged(read_job_file(job), given))
    screen = console.stderr_console()
    if dry_run and cross_validate is not None:
        raise InputError("--dry-run tries one training, --cross-validate makes several; give one of them")
    if folds_by is not None and cross_validate is None:
        raise InputError("--folds-by is of a cross-validation; give --cross-validate and the number of folds, too")
    if dry_run:
        with observe(screen) as observer:
            found = try_job(described, observer)
        if json:
            console.print_json(asdict(found) | {"seconds": found.seconds})
        else:
            for line in describe(found):
                print(printable(line))
        return DONE
    if cross_validate is not None:
        with stop_signals() as stop, observe(screen) as observer:
            folds = run_folds(described, cross_validate, folds_by or "image", observer, stop.is_set)
        if json:
            console.print_json(folds_json(folds))
        else:
            print_folds(screen, folds)
        return DONE if folds.state == "finished" else INTERRUPTED
    with stop_signals() as stop, observe(screen) as observer:
        report = run_job(described, observer, stop.is_set)
    print_report(screen, report, described)
    if json:
        console.print_json(report_json(report))
    return DONE if report.state == "finished" else INTERRUPTED
