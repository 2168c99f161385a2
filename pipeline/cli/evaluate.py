"""`fcn evaluate`: how good a model is on annotated images."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, INTERRUPTED, Flag
from pipeline.cli.interrupts import stop_signals
from pipeline.cli.log_format import LogFormat
from pipeline.cli.log_format import use as use_log_format
from pipeline.jobs.evaluate import EvaluateJob, EvaluateOptions


def evaluate(
    model: str,
    dataset: str,
    *,
    options: Annotated[EvaluateOptions | None, Parameter(name="*", negative="")] = None,
    config: Path | None = None,
    open: Flag = False,
    json: Flag = False,
    log_format: LogFormat | None = None,
) -> int:
    """Score MODEL on a split of DATASET, annotated images that it was not trained on.

    A split with broken examples is refused, and all of them are named.

    Parameters
    ----------
    model
        The model: the folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION.
    dataset
        Annotated images: a folder in PASCAL VOC's layout, or a manifest (.parquet, .csv, .tsv); path or URI.
    config
        A YAML file with any of these options; the command line wins.
    open
        Show the page in a browser of this machine; needs --output in a local folder.
    json
        Print the scores as JSON on standard output, instead of the table.
    log_format
        How log lines look: text (key=value) or json. Default: FCN_LOG_FORMAT, else text.
    """
    from pipeline.actors.lone_worker import may_do, start_early
    from pipeline.cli import console
    from pipeline.cli.console_scores import print_scores, report_json
    from pipeline.cli.open_page import open_page, page_folder
    from pipeline.cli.terminal import Screen

    use_log_format(log_format)
    given = options.model_dump() if options is not None else {}
    job = EvaluateJob(model=model, dataset=dataset, **given)
    if may_do(job.ray_address, job.actors, job.gpus_per_actor):
        start_early("pipeline.evaluation.evaluator")
    from pipeline.evaluation.job import EvaluationStopped
    from pipeline.evaluation.job import evaluate as run_job

    screen = console.stderr_console()
    folder = page_folder(job.output, "--output FOLDER") if open else None
    try:
        with stop_signals() as stop, console.observe(screen) as observer:
            report = run_job(job, observer, stop.is_set)
    except EvaluationStopped as error:
        screen.print(str(error), markup=False)
        return INTERRUPTED
    if json:
        console.print_json(report_json(report, job.output))
    else:
        print_scores(Screen(soft_wrap=True), report)
    if job.output is not None:
        page = f"{job.output.rstrip('/')}/{report.page}" if "?" not in job.output else str(report.page)
        screen.print(f"scores and a row per image are under {job.output}; the page is {page}", markup=False)
        if folder is not None and report.page is not None:
            open_page(screen, folder / report.page)
    return DONE
