"""A group of training workers as the driver sees it: start it, ask how it is doing, ask it to stop, end it.

The one thing to know: between the driver and Ray Train stands a leader, an actor of its own. The driver can ask it
things while training runs; and when it ends the leader, or dies itself, all that the leader started ends too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import PipelineError
from pipeline.training.progress import TrainProgress, WorkerOutcome

if TYPE_CHECKING:
    from pipeline.training.worker import WorkerSpec

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class GroupSpec:
    """How many workers, on what, and how they talk to each other. `workers`: least and most."""

    workers: tuple[int, int]
    cpus: int
    use_gpu: bool
    device: Literal["cpu", "cuda"]
    resources: dict[str, float]
    placement: str
    backend: Literal["gloo", "nccl"]
    backend_timeout: float
    environment: dict[str, str]
    max_failures: int
    resize_interval: float

    def bundle(self) -> dict[str, float]:
        """What each worker holds, by Ray's names."""
        return {"CPU": float(self.cpus)} | ({"GPU": 1.0} if self.use_gpu else {}) | self.resources

    def __str__(self) -> str:
        """ "2 worker(s) of 1 CPU", "1 to 4 worker(s) of 8 CPU and 1 GPU"."""
        least, most = self.workers
        number = f"{most}" if least == most else f"{least} to {most}"
        return f"{number} worker(s) of {' and '.join(f'{amount:g} {name}' for name, amount in self.bundle().items())}"


@dataclass(frozen=True)
class GroupStatus:
    """How a group is doing. `waiting`: no worker has reported since the group began, or broke; `failures` counts
    the times it broke, and `reason` is of the last."""

    progress: TrainProgress | None
    waiting: bool
    failures: int
    reason: str


@dataclass(frozen=True)
class GroupResult:
    """How it ended: with an outcome, refused for what no other try would mend, or failed too often."""

    outcome: WorkerOutcome | None
    refused: str | None = None
    failed: str | None = None


class Group:
    """Workers that train one stage. `end` it when done with it, however that came."""

    def __init__(self, spec: GroupSpec, work: "WorkerSpec") -> None:
        from pipeline.training.leader import ENVIRONMENT, GroupLeader  # Ray Train takes seconds to import

        # On this node: where the driver is, it is needed just as long. Not soft=True: Ray 2.60 then places an actor
        # without CPUs anywhere, and training would end with a node that could be spared.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor: Any = ray.remote(GroupLeader)
        self._leader = actor.options(
            num_cpus=0, max_concurrency=8, scheduling_strategy=here, runtime_env={"env_vars": ENVIRONMENT}
        ).remote()
        # In a list, Ray leaves the reference as it is: only the workers look at what it stands for.
        self._run = self._leader.run.remote(self._leader, spec, work.name, [ray.put(work)])

    def wait(self, seconds: float) -> GroupResult | None:
        """The result, if it is there within so many seconds. Raises PipelineError when the leader is lost."""
        done, _ = ray.wait([self._run], timeout=seconds)
        if not done:
            return None
        result: GroupResult = self._ask(self._run)
        return result

    def status(self) -> GroupStatus | None:
        """How it is doing; None when the leader has no time to answer, or cannot be reached just now."""
        try:
            status: GroupStatus = self._ask(self._leader.status.remote())
        except (GetTimeoutError, ActorUnavailableError):
            return None
        return status

    def stop(self) -> None:
        """Ask the workers to save and stop, after the step that they are at."""
        self._leader.stop.remote()

    def end(self) -> None:
        """End the leader and all it has started."""
        ray.kill(self._leader)

    def _ask(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=ANSWER_SECONDS)
        except ActorDiedError as error:
            raise PipelineError("Ray lost the process that leads the training; the same command resumes") from error
