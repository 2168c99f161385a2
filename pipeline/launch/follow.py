"""A job that runs elsewhere, seen through to its end: found or submitted, watched, stopped when asked to.

Whoever follows may die. The job goes on, and who asks for the same work next finds it running and follows on.
"""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from pipeline.errors import PipelineError
from pipeline.launch.launcher import Launcher, LauncherUnavailable
from pipeline.launch.work import Outcome, Work, read_outcome

T = TypeVar("T")

POLL_SECONDS = 2.0

AWAY_SECONDS = 300.0
"""How long the place may be away before the follower gives up. The job is not stopped then."""

LEAVE_SECONDS = 20.0
"""The same for a follower that is told to end, and has to tell the job first: Prefect's worker kills it after 30 s."""

STOP_SECONDS = 60.0
"""How long a job may take to stop."""


class LaunchObserver(Protocol):
    """Receives the events of a launch, as any job's observer does."""

    def phase(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


def follow(
    launcher: Launcher,
    work: Work,
    listener: LaunchObserver,
    should_stop: Callable[[], bool],
    look: Callable[[], None] = lambda: None,
    poll_seconds: float = POLL_SECONDS,
    on_launch: Callable[[str], None] = lambda where: None,
) -> Outcome:
    """Run `work` through `launcher` and return how it ended.

    `look` is called at every poll, for live numbers; `on_launch` once, with what people are told of where it runs.

    A launch of the same work that has not ended is followed, not started anew. When `should_stop` turns true, or an
    interrupt or the end of this process comes (anything but an Exception), the job is stopped, resumably. Raises
    InputError when the place refuses, PipelineError when it stays away or the job ended without an outcome.
    """
    launch_id = launcher.find(work)  # without retries: a wrong address is reported at once
    if launch_id is None:
        launch_id = _with_retries(lambda: launcher.submit(work), poll_seconds)
        listener.note(f"launched {launch_id}")
    else:
        listener.note(f"following {launch_id}, which runs already")
    try:
        on_launch(launcher.where(launch_id))
        return _watch(launcher, work, launch_id, listener, should_stop, look, poll_seconds)
    except BaseException as error:
        if not isinstance(error, Exception):
            _with_retries(lambda: launcher.stop(launch_id), poll_seconds, LEAVE_SECONDS)
        raise


def _watch(
    launcher: Launcher,
    work: Work,
    launch_id: str,
    listener: LaunchObserver,
    should_stop: Callable[[], bool],
    look: Callable[[], None],
    poll_seconds: float,
) -> Outcome:
    said = ""
    stop_by: float | None = None
    while True:
        status = _with_retries(lambda: launcher.status(launch_id), poll_seconds)
        if status.state == "ended":
            break
        if status.state != said:
            said = status.state
            listener.phase(f"{launch_id} is {said}")
        look()
        if stop_by is None and should_stop():
            listener.phase(f"stopping {launch_id}")
            _with_retries(lambda: launcher.stop(launch_id), poll_seconds)
            stop_by = time.monotonic() + STOP_SECONDS
        if stop_by is not None and time.monotonic() > stop_by:
            raise PipelineError(
                f"{launch_id} did not stop within {STOP_SECONDS:.0f} s ({status.reason}); stop it by hand"
            )
        time.sleep(poll_seconds)
    look()
    outcome = read_outcome(work, launch_id)
    if outcome is not None:
        return outcome
    if stop_by is not None:
        return Outcome(state="interrupted", message="the job was stopped; the same work resumes it")
    raise PipelineError(
        f"{launch_id} ended without an outcome ({status.reason}); its logs say more. Run again to resume"
    )


def _with_retries(ask: Callable[[], T], poll_seconds: float, seconds: float = AWAY_SECONDS) -> T:
    """The answer, asked for again and again while the place is away: a cluster that has just started is, too."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except LauncherUnavailable:
            if time.monotonic() > give_up:
                raise
            time.sleep(poll_seconds)
