"""The `fcn` command. Thin: options in, a call of the library, a few lines out.

Exit codes: 0 done, 1 failed, 2 bad input (nothing was done), 3 too many errors, 130 interrupted. What is slow to
import (PyTorch, Ray) is imported in the commands, so that `fcn --help` answers at once.
"""

import os
import select
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from cyclopts.validators import Number

from pipeline.cli.audit import audit_app
from pipeline.cli.common import (
    BAD_INPUT,
    DONE,
    FAILED,
    INTERRUPTED,
    TOO_MANY_ERRORS,
    Flag,
    config_options,
    error_text,
    validation_message,
)
from pipeline.cli.compact import compact
from pipeline.cli.data import data_app
from pipeline.cli.doctor import doctor
from pipeline.cli.estimate import estimate
from pipeline.cli.evaluate import evaluate
from pipeline.cli.gc import gc
from pipeline.cli.help import group_commands, group_of, own_version, print_examples, sort_key_of, usage_message
from pipeline.cli.insight import compare, query, rank
from pipeline.cli.interrupts import quiet_interrupts, stop_signals
from pipeline.cli.log_format import LogFormat, scope, time_warnings
from pipeline.cli.log_format import use as use_log_format
from pipeline.cli.lost_output import OutputLost, survive_lost_stderr, tell_lost_stdout
from pipeline.cli.masks import masks_app
from pipeline.cli.model import model_app
from pipeline.cli.option_groups import RUN_CONTROL, SOURCE_AND_OUTPUT, GroupedSegmentOptions
from pipeline.cli.registry import registry_app
from pipeline.cli.report import report
from pipeline.cli.runs import runs_app
from pipeline.cli.terminal import Screen, guard
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import SegmentJob
from pipeline.yaml_text import read_yaml

READER_GONE = 141
"""The exit code where standard output was closed early: what a shell says of a program that a broken pipe ended."""


_JOBS: dict[str, type[pydantic.BaseModel]] = {"segment": SegmentJob, "evaluate": EvaluateJob}
"""What the commands with `--config` do."""


def _config_file(app: App, commands: tuple[str, ...], arguments: Any) -> None:
    """Take what `--config FILE` says for every option that the command line does not give."""
    for argument in arguments:
        if argument.name == "--config" and argument.tokens:
            path = argument.tokens[0].value
            try:
                options = read_yaml(Path(path).read_text())
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise CycloptsError(msg=f"--config {path} cannot be read: {error}") from error
            options = config_options(_JOBS[commands[-1]], path, options)
            for command in reversed(commands):
                options = {command: options}
            Dict(options, source=path)(app, commands, arguments)


app = App(
    name="fcn",
    help="Segment the images of a bucket or folder with fully convolutional networks.",
    version=own_version,
    config=_config_file,
    console=Screen(highlight=True),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
app.command(evaluate)
app.command(runs_app)
app.command(report)
app.command(rank)
app.command(compare)
app.command(query)
app.command(audit_app)
app.command(model_app)
app.command(registry_app)
app.command(data_app)
app.command(masks_app)
app.command(compact)
app.command(gc)
app.command(doctor)


@app.command
def segment(
    source: Annotated[str, SOURCE_AND_OUTPUT],
    output: Annotated[str, SOURCE_AND_OUTPUT],
    *,
    options: Annotated[GroupedSegmentOptions, Parameter(name="*", negative="")],
    config: Annotated[Path | None, RUN_CONTROL] = None,
    dry_run: Annotated[Flag, RUN_CONTROL] = False,
    prices: Annotated[Path | None, RUN_CONTROL] = None,
    json: Annotated[Flag, RUN_CONTROL] = False,
    log_format: Annotated[LogFormat | None, RUN_CONTROL] = None,
) -> int:
    """Segment every image under SOURCE and write masks and tables under OUTPUT.

    Images that are done are skipped, so the same command resumes a stopped run and adds what is new.

    Parameters
    ----------
    source
        Where the images are: a folder, s3://, gs:// or az://.
    output
        Where masks and tables go. Not inside the source.
    config
        A YAML file with any of these options; the command line wins.
    dry_run
        Estimate work, storage requests, time and cost, and write nothing. Runs ten images through the model.
    prices
        With --dry-run: a TOML file of prices. Default: built-in examples.
    json
        Print the outcome as JSON on standard output.
    log_format
        How log lines look: text (key=value) or json. Default: FCN_LOG_FORMAT, else text.
    """
    from pipeline.actors.lone_worker import may_do, start_early
    from pipeline.cli import console
    from pipeline.errors import InputError

    use_log_format(log_format)
    job = SegmentJob(source=source, output=output, **options.model_dump())
    if not dry_run and may_do(job.ray_address, job.actors, job.gpus_per_actor):
        start_early("pipeline.segmentation.segmenter")
    from pipeline.segmentation.job import segment as run_job

    if prices is not None and not dry_run:
        raise InputError("--prices says what a job would cost; give --dry-run as well, or leave it out")
    screen = console.stderr_console()
    if dry_run:
        return estimate(job, prices, json=json)
    with stop_signals() as stop, console.observe(screen) as observer:
        report = run_job(job, observer, stop.is_set)
    console.print_report(screen, report, output)
    if json:
        console.print_json(console.report_json(report, output))
    if report.state == "interrupted" and not report.aborted:
        return INTERRUPTED
    return TOO_MANY_ERRORS if report.failed_gate else DONE


@app.command
def preview(
    image: str,
    *,
    model: str,
    registry: str | None = None,
    image_column: str | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    void_below: Annotated[float, Parameter(validator=Number(gte=0, lt=1))] = 0.0,
    flip: Flag = False,
    scales: tuple[float, ...] = (1.0,),
) -> int:
    """Segment one image and draw the result beside it.

    Parameters
    ----------
    image
        A file, or an object by URI.
    model
        The model: the folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION.
    registry
        The folder or URI where registry:... models are. Default: FCN_REGISTRY.
    image_column
        Of a row of a Parquet file: the column of the images, as in `fcn segment`.
    output
        The picture to write. Default: the image's name with .preview.png, in this folder.
    void_below
        Leave pixels void whose largest softmax probability is lower; the picture shows the image there.
    flip
        Test-time augmentation, as in `fcn segment`: the mirror image counts, too.
    scales
        Test-time augmentation, as in `fcn segment`: factors on the image's size.
    """
    from pipeline.cli import console
    from pipeline.numbers import score
    from pipeline.segmentation import preview as previews

    target = output or Path(f"{Path(image).stem}.preview.png")
    totals, confidence = previews.write_preview(
        image,
        model,
        target,
        registry=registry,
        image_column=image_column,
        device=device,
        precision=precision,
        void_below=void_below,
        flip=flip,
        scales=scales,
    )
    screen = console.stderr_console()
    screen.print(console.class_table(totals))
    screen.print(f"confidence {score(confidence)}; picture in {target}", markup=False)
    return DONE


@app.command
def verify(output: str, *, no_masks: Flag = False, allow_empty: Flag = False, json: Flag = False) -> int:
    """Check masks, results and tables of an output against each other. Exits 1 when something differs.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    no_masks
        Do not read the masks: much quicker, and blind to what happened to them.
    allow_empty
        Find nothing where no job has run yet, instead of exit code 2: for schedules.
    json
        Print the findings as JSON.
    """
    from dataclasses import asdict

    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.numbers import counted
    from pipeline.outputs.runs import require_output
    from pipeline.outputs.verify import Verified
    from pipeline.outputs.verify import verify as check
    from pipeline.storage.opening import open_store

    store = open_store(output)
    require_output(store, allow_empty=allow_empty)
    checked = Verified()
    findings = []
    for finding in check(store, checked, masks=not no_masks):
        findings.append(finding)
        if not json:
            print(f"{printable(finding.file)}: {printable(finding.problem)}")
    if json:
        console.print_json({**asdict(checked), "findings": [asdict(finding) for finding in findings]})
    else:
        what = f"{counted(checked.runs, 'run')}, {counted(checked.rows, 'row')}, {counted(checked.masks, 'mask')}"
        print(f"{what} checked: {counted(len(findings), 'finding')}")
    return FAILED if findings else DONE


app.register_install_completion_command(help="Install shell completion of commands and options: bash, zsh or fish.")
group_commands(app)
# Imported when they are run: their options are those of PyTorch's side.
app.command(
    "pipeline.cli.train:train",
    name="train",
    help="Train a network on annotated images, on one machine or many.",
    group=group_of("train"),
    sort_key=sort_key_of("train"),
)
app.command(
    "pipeline.cli.retrain:retrain",
    name="retrain",
    help="Train a challenger and promote it if it beats the champion.",
    group=group_of("retrain"),
    sort_key=sort_key_of("retrain"),
)
app.command(
    "pipeline.cli.distil:distil",
    name="distil",
    help="Train a small network on a large one's predictions for a sample.",
    group=group_of("distil"),
    sort_key=sort_key_of("distil"),
)
# What a launch runs on a cluster; not for people.
app.command("pipeline.cli.run_launch:run_launch", name="run-launch", show=False)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `fcn`: runs the command and exits with its code."""
    survive_lost_stderr()
    tell_lost_stdout()
    guard()
    time_warnings()
    with quiet_interrupts():
        try:
            code = run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            if not _reader_is_gone():
                raise
            # `fcn ... | head`: who reads has seen enough.
            code = READER_GONE
            _write_nowhere()
        except OutputLost as error:
            code = _fail(f"standard output could not be written ({error}): what was printed is not whole", FAILED)
            _write_nowhere()
    sys.exit(code)


def _write_nowhere() -> None:
    """What Python flushes when it ends must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    """Whether standard output is a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; errors meant for people are one line on standard error.

    What a message quotes may hold control characters and line breaks: the first are shown, and lines that are not the
    first are set in.
    """
    with scope():
        return _run(sys.argv[1:] if arguments is None else arguments)


def _run(tokens: list[str]) -> int:
    from fcn_core.errors import FcnError
    from pipeline.errors import InputError, PipelineError, StorageError

    try:
        code = int(app(tokens, exit_on_error=False, print_error=False) or 0)
        print_examples(app, tokens)
        return code
    except CycloptsError as error:
        cause = error.__cause__
        message = validation_message(cause) if isinstance(cause, pydantic.ValidationError) else usage_message(error)
        return _fail(message + " (--help shows the options)", BAD_INPUT)
    except pydantic.ValidationError as error:
        return _fail(validation_message(error), BAD_INPUT)
    except (InputError, FcnError) as error:
        return _fail(str(error), BAD_INPUT)
    except StorageError as error:
        return _fail(str(error), FAILED)
    except PipelineError as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command resumes", INTERRUPTED)


def _fail(message: str, code: int) -> int:
    print(error_text("fcn", message), file=sys.stderr)
    return code
