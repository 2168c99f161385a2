"""What all launchers offer: start a job elsewhere, find it again, ask how it is, stop it."""

from dataclasses import dataclass
from typing import Literal, Protocol

from pipeline.errors import PipelineError
from pipeline.launch.work import Work

LaunchState = Literal["waiting", "running", "ended"]


class LauncherUnavailable(PipelineError):
    """The place that runs the job does not answer just now; the job itself may be well."""


@dataclass(frozen=True)
class LaunchStatus:
    """How a launch stands: `reason` is what the place itself says of it, for people."""

    state: LaunchState
    reason: str = ""


class Launcher(Protocol):
    """A place that runs jobs. Methods raise InputError when it refuses us, LauncherUnavailable when it is away."""

    def find(self, work: Work) -> str | None:
        """The id of a launch of this very work that has not ended; None when there is none."""

    def submit(self, work: Work) -> str:
        """Start it; returns the launch's id. When somebody else has just started the same work, theirs."""

    def status(self, launch_id: str) -> LaunchStatus:
        """How a launch stands. One that is unknown has ended."""

    def where(self, launch_id: str) -> str:
        """For people, as Markdown: where a launch is looked at and how its log is read, even when nobody follows it."""

    def stop(self, launch_id: str) -> None:
        """Ask a launch to stop. What it has done stays, and the same work goes on from there."""


def launch_id(work: Work, attempt: int) -> str:
    return f"{work.name}-{attempt}"


def next_attempt(work: Work, known: list[str]) -> int:
    """The number of the next launch of this work: one more than any that the place knows or that left an outcome."""
    prefix = f"{work.name}-"
    left = [info.key.removeprefix("launches/").removesuffix(".json") for info in work.output().list("launches/")]
    numbers = [name.removeprefix(prefix) for name in (*known, *left) if name.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def command(work: Work, launch_id: str) -> list[str]:
    """What runs at the other end: a command of `fcn`, which the package that is installed there brings.

    With -P nothing is imported from the folder that the job runs in.
    """
    return ["python", "-P", "-m", "pipeline", "run-launch", launch_id, work.model_dump_json()]
