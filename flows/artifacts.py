"""What the flows share: a job's progress as an artifact, a table of scores, steps as tasks, and the wish to stop."""

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import deployment, flow_run
from pydantic import BaseModel

from flows.markdown import code, plain
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.work import refuse_relative
from pipeline.logfmt import key_values
from pipeline.numbers import duration, fixed, score, three_digits
from pipeline.outputs.runs import Progress

ARTIFACT_SECONDS = 2.0
"""How often a progress artifact is brought up to date."""

ASK_SECONDS = 5.0
"""How often the server is asked whether a run has been cancelled."""

T = TypeVar("T")


def is_away(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a task failed because the place that runs its job does not answer."""
    return isinstance(state.result(raise_on_failure=False), LauncherUnavailable)


WHILE_AWAY: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [10, 60, 300], "retry_condition_fn": is_away}
"""For tasks that submit and follow a job. Nothing else is tried again by itself: bad input stays bad, and what Ray or
the storage could have mended is mended inside the job."""


def as_task(name: str, step: Callable[[], T], /) -> T:
    """Call `step` as a task of the present flow run. Never cached: that a re-run is safe comes from the storage."""

    def call() -> T:
        return step()

    return task(name=name, cache_policy=NO_CACHE, **WHILE_AWAY)(call)()


def refuse_relative_places(job: BaseModel) -> None:
    """Refuse places relative to a folder in a run of a deployment: a worker makes one for each run, and deletes it."""
    if deployment.id is not None:
        refuse_relative(job)


def show_launch(where: str) -> None:
    """An artifact that says where the job of the present task runs: what one looks for first when it is in trouble."""
    try:
        create_markdown_artifact(where, key="launch", description="Where the job runs")
    except Exception as error:  # as for progress: the job is what counts
        get_run_logger().warning("the artifact with the job's place could not be written: %s", error)


class ProgressArtifact:
    """One progress artifact of the present flow run. May be updated more often than is sent to the server."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._artifact: Any = None
        self._publish(0.0, "starting")

    def update(self, share: float, text: str) -> None:
        """`share` of the work is done, 0..1."""
        if time.monotonic() - self._updated >= ARTIFACT_SECONDS:
            self._publish(share, text)

    def finish(self, text: str) -> None:
        self._publish(1.0, text)

    def _publish(self, share: float, text: str) -> None:
        self._updated = time.monotonic()
        # A server that is away for a moment is no reason to end a run of hours.
        try:
            if self._artifact is None:
                self._artifact = create_progress_artifact(100.0 * share, key="progress", description=text)
            else:
                update_progress_artifact(self._artifact, 100.0 * share, description=text)
        except Exception as error:
            self._log.warning("the progress artifact could not be written: %s", error)


class JobObserver(Observer):
    """Phases, notes and shards of a job on actors to the run's log; progress to an artifact."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._progress = ProgressArtifact()

    def phase(self, name: str) -> None:
        self._log.info("%s", key_values(phase=name))

    def note(self, text: str) -> None:
        self._log.info("%s", key_values(note=text))

    def progress(self, progress: Progress) -> None:
        left = "" if progress.eta_seconds is None else f", about {duration(progress.eta_seconds)} left"
        self._progress.update(
            progress.done / progress.images,
            f"{progress.done:,} of {progress.images:,} images, {progress.counts.failed:,} failed; "
            f"now {three_digits(progress.images_per_second)} images/s{left}",
        )

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        self._log.info("%s", key_values(run=run_id, **outcome.for_log(), done=f"{done}/{images}"))

    def finish(self) -> None:
        self._progress.finish("all images done")


class CancelWatch:
    """Whether somebody has cancelled the present flow run: to be called often, it asks the server now and then.

    Who cancels a run of a worker has its process ended too; a run from a terminal only learns of it here.
    """

    def __init__(self) -> None:
        self._run_id = flow_run.id
        self._log = get_run_logger()
        self._asked = time.monotonic()
        self._cancelled = False

    def __call__(self) -> bool:
        if not self._cancelled and time.monotonic() - self._asked >= ASK_SECONDS:
            self._cancelled = self._ask()
            self._asked = time.monotonic()
        return self._cancelled

    def _ask(self) -> bool:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._run_id).state
        except Exception as error:
            self._log.warning("the server could not be asked whether the run is cancelled: %s", error)
            return False
        return state is not None and (state.is_cancelling() or state.is_cancelled())


def link_to(output: str, key: str) -> str:
    """An object under `output` as Markdown: a link where a browser opens it for who may read there, else its URI.

    Browsers cannot open s3:// and gs://; AWS and Google have pages of objects, other services have none in common.
    """
    place, _, options = output.partition("?")
    uri = f"{place.rstrip('/')}/{key}"
    scheme, _, path = uri.partition("://")
    bucket, _, name = path.partition("/")
    elsewhere = options or any(variable in os.environ for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    if scheme == "s3" and not elsewhere:
        return f"[{plain(uri)}](https://console.aws.amazon.com/s3/object/{quote(bucket)}?prefix={quote(name)})"
    if scheme == "gs":
        return (
            f"[{plain(uri)}](https://console.cloud.google.com/storage/browser/_details/{quote(bucket)}/{quote(name)})"
        )
    return code(uri)


def fraction(value: float | None, sign: str = "") -> str:
    """A score or a difference for a person, a dash where there is none."""
    return "-" if value is None else fixed(value, sign=sign) if sign else score(value, 4)
