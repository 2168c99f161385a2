"""Run a flow from a terminal: `python -P -m flows segment SOURCE OUTPUT --model MODEL`.

Uses the Prefect server that PREFECT_API_URL or the active profile names, else an ephemeral one inside the process.
With -P Python imports nothing from the current folder, which may be somebody's folder of images.
"""

import sys
from pathlib import Path
from typing import Annotated

import pydantic
from cyclopts import App, Parameter

from flows.environment import enter_empty_folder, leave_folder, prepare_prefect, start_prefect
from pipeline.audit.job import AuditJob
from pipeline.cli.common import BAD_INPUT, FAILED, INTERRUPTED, error_text, validation_message
from pipeline.cli.distil import DistilOptions
from pipeline.cli.retrain import RetrainOptions
from pipeline.cli.terminal import guard
from pipeline.errors import InputError, PipelineError
from pipeline.jobs.choose import ChooseJob
from pipeline.jobs.distil import DistilJob
from pipeline.jobs.evaluate import EvaluateJob, EvaluateOptions
from pipeline.jobs.importing import AddOptions, Annotations
from pipeline.jobs.job_file import read_job_file
from pipeline.jobs.places import absolute_places
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob, SegmentOptions
from pipeline.jobs.train import merged

app = App(name="python -P -m flows", help="Run a flow here and now.", suppress_keyboard_interrupt=False)


@app.command
def segment(source: str, output: str, *, options: Annotated[SegmentOptions, Parameter(name="*", negative="")]) -> None:
    """Label what is new under SOURCE, as a Prefect flow run. The options are those of `fcn segment`."""
    job = leave_folder(SegmentJob(source=source, output=output, **options.model_dump()))
    from flows.segment import segment as flow

    start_prefect()
    summary = flow(job)
    print(summary.model_dump_json(indent=2))


@app.command
def evaluate(
    model: str,
    dataset: str,
    *,
    options: Annotated[EvaluateOptions | None, Parameter(name="*", negative="")] = None,
) -> None:
    """Score MODEL on a split of DATASET, as a Prefect flow run. The options are those of `fcn evaluate`."""
    given = options.model_dump() if options is not None else {}
    job = leave_folder(EvaluateJob(model=model, dataset=dataset, **given))
    from flows.evaluate import evaluate as flow

    start_prefect()
    print(flow(job).model_dump_json(indent=2))


@app.command
def audit(*, options: Annotated[AuditJob, Parameter(name="*", negative="")]) -> None:
    """Estimate areas and accuracies from an audit's annotations, as a flow run that fails when its gate does."""
    job = leave_folder(options)
    from flows.audit import audit as flow

    start_prefect()
    print(flow(job).model_dump_json(indent=2))


@app.command
def retrain(
    job: Path | None = None,
    *,
    options: Annotated[RetrainOptions | None, Parameter(name="*", negative="")] = None,
) -> None:
    """Train a challenger and promote it if it beats the champion, as a Prefect flow run.

    The same command again resumes what was stopped, and never promotes the same model twice.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    """
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = leave_folder(RetrainJob.model_validate(merged(read_job_file(job), given)))
    from flows.retrain import retrain as flow

    start_prefect()
    print(flow(described).model_dump_json(indent=2))


@app.command
def choose(*, options: Annotated[ChooseJob, Parameter(name="*", negative="")]) -> None:
    """Choose the images that are most worth annotating and write tasks for people, as a Prefect flow run."""
    job = leave_folder(options)
    from flows.improve import choose as flow

    start_prefect()
    print(flow(job).model_dump_json(indent=2))


@app.command
def learn(
    annotations: str,
    job: Path | None = None,
    *,
    adding: AddOptions | None = None,
    options: Annotated[RetrainOptions | None, Parameter(name="*", negative="")] = None,
) -> None:
    """Add what people have annotated to the data set, and retrain on it, as a Prefect flow run.

    Parameters
    ----------
    annotations
        What the annotation tool exported: a folder, .zip or .json, path or URI.
    job
        A YAML file with the options of `fcn retrain`; the command line wins. `dataset` is a data set with versions.
    adding
        How the annotations are read: the options of `fcn data add`.
    """
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = RetrainJob.model_validate(merged(read_job_file(job), given))
    source = absolute_places(Annotations(annotations=annotations))
    read = absolute_places(adding or AddOptions())
    described = leave_folder(described)
    from flows.improve import learn as flow

    start_prefect()
    print(flow(source.annotations, described, read).model_dump_json(indent=2))


@app.command
def distil(
    job: Path | None = None,
    *,
    options: Annotated[DistilOptions | None, Parameter(name="*", negative="")] = None,
) -> None:
    """Train a small network on a large one's predictions for a sample, as a Prefect flow run.

    The same command again resumes what was stopped.

    Parameters
    ----------
    job
        A YAML file with any of these options; the command line wins.
    """
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    described = leave_folder(DistilJob.model_validate(merged(read_job_file(job), given)))
    from flows.distil import distil as flow

    start_prefect()
    print(flow(described).model_dump_json(indent=2))


@app.command
def notify(
    *,
    webhook: Annotated[str | None, Parameter(env_var="FCN_NOTIFY_WEBHOOK", show_env_var=True)] = None,
    slack: Annotated[str | None, Parameter(env_var="FCN_NOTIFY_SLACK", show_env_var=True)] = None,
    tag: str = "fcn",
    remove: bool = False,
) -> None:
    """Have Prefect's server say when a run fails or is late, too many images fail, or there is a new champion.

    The same command again changes where messages go to.

    Parameters
    ----------
    webhook
        A web server's address, which gets a JSON object for each message. Other users of this machine see what is typed
        here while the command runs: rather set the variable.
    slack
        The address of an incoming webhook of Slack.
    tag
        Which deployments: those with this tag, as in prefect.yaml.
    remove
        Delete all that this command has made.
    """
    enter_empty_folder()
    from flows.notify import deploy
    from flows.notify import remove as remove_all

    done = remove_all() if remove else deploy(webhook, slack, tag)
    for name in done:
        print(f"{name}: {'removed' if remove else 'deployed'}")


def main() -> None:
    from fcn_core.errors import FcnError

    guard()
    prepare_prefect()
    try:
        app()
    except pydantic.ValidationError as error:
        _fail(validation_message(error), BAD_INPUT)
    except (InputError, FcnError) as error:
        _fail(str(error), BAD_INPUT)
    except PipelineError as error:
        _fail(str(error), FAILED)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        from prefect.exceptions import CancelledRun  # slow to import, and read from the environment

        if not isinstance(error, CancelledRun):
            raise
        print("the run was cancelled; the same command resumes", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _fail(message: str, code: int) -> None:
    print(error_text("flow failed", message), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
