"""A group of training workers as the driver sees it: start it, ask how it is doing, ask it to stop, end it.

The one thing to know: between the driver and Ray Train stands a leader, an actor of its own. The driver can ask it
things while training runs; and when it ends the leader, or dies itself, all that the leader started ends too.
"""

from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import PipelineError
from pipeline.training.group_spec import GroupResult, GroupSpec, GroupStatus

if TYPE_CHECKING:
    from pipeline.training.worker import TrainWorkerSpec

ANSWER_SECONDS = 30.0


class Group:
    """Workers that train one stage. `end` it when done with it, however that came."""

    def __init__(self, spec: GroupSpec, work: "TrainWorkerSpec") -> None:
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
