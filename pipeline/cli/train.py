"""`fcn train`: a job file and what the command line changes of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Parameter

from pipeline.cli.common import DONE, INTERRUPTED, Flag, stop_signals
from pipeline.errors import InputError
from pipeline.jobs.train import TrainJob, merged, optional
from pipeline.yaml_text import read_yaml

KINDS: dict[str, Any] = {
    "workers": str,
    "staged": Annotated[bool, Parameter(negative="--no-staged")],
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
    json: Flag = False,
) -> int:
    """Train a network on labelled images, on one machine or many.

    The same command again resumes a run that was stopped, or whose machine died; a finished one has nothing to do.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    json
        Print the outcome as JSON on standard output.
    """
    from pipeline.cli import console
    from pipeline.cli.console_train import observe, print_report, report_json
    from pipeline.training.job import train as run_job

    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = TrainJob.model_validate(merged(read_job_file(job), given))
    screen = console.stderr_console()
    with stop_signals() as stop, observe(screen) as observer:
        report = run_job(described, observer, stop.is_set)
    print_report(screen, report)
    if json:
        console.print_json(report_json(report))
    return DONE if report.state == "finished" else INTERRUPTED


def read_job_file(job: Path | None) -> dict[str, Any]:
    """The options in a YAML file; none without a file. Raises InputError."""
    if job is None:
        return {}
    try:
        options = read_yaml(job.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"the job file {job} cannot be read ({' '.join(str(error).split())}); check it") from error
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise InputError(f"the job file {job} holds no options; write them as name: value, one per line")
    return options
