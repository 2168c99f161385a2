"""Who works on a job's shards: one process without Ray where they are few, else the actors of a pool.

Both do the same with a shard, byte for byte. What goes wrong in the process is left to the actors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from fcn_core import ModelBundle, PredictorSettings
from pipeline.actors import cluster
from pipeline.actors.lone_worker import WorkerLeft, is_small, lone_worker, may_do
from pipeline.actors.metrics import JobKind
from pipeline.actors.model_files import put_model, try_here
from pipeline.actors.observer import Observer
from pipeline.actors.pool import ShardPool
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.actors.worker import Processor
from pipeline.closing import Closing
from pipeline.jobs.segment import ActorOptions
from pipeline.outputs.shard import Shard


@dataclass(frozen=True)
class ShardWork:
    """What is to be done: `images` in `count` shards, by `factory(spec, the bundle's files, *more)`."""

    bundle: ModelBundle
    settings: PredictorSettings
    spec: Any
    pool: PoolSpec
    images: int
    count: int
    shards: Callable[[], Iterator[Shard]]
    """Those that are not committed at the moment of the call."""
    more: tuple[Any, ...] = ()


class ShardRunner(Closing):
    """Runs the shards of one job. The process, which may turn out not to be needed, starts beside the driver's own
    preparations.
    """

    def __init__(
        self, options: ActorOptions, factory: Callable[..., Processor], observer: Observer, kind: JobKind = "segment"
    ) -> None:
        self._options = options
        self._factory = factory
        self._observer = observer
        self._kind: JobKind = kind
        self._alone = may_do(options.ray_address, options.actors, options.gpus_per_actor)
        self._lone = lone_worker(factory.__module__) if self._alone else None

    def run(
        self,
        doing: str,
        work: ShardWork,
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Work through all shards; True when they are committed, False when `should_stop` said so first.

        `doing` names the phase for a person. Raises what `cluster.connect` and `ShardPool.run` raise.
        """
        if self._alone and is_small(work.pool, work.count, work.images):
            try_here(work.bundle, work.settings)
            self._observer.phase(doing)
            try:
                return self._run_alone(work, on_done, on_progress, should_stop)
            except WorkerLeft as left:
                self._observer.note(f"{left}; Ray's actors go on")
        self.close()
        self._observer.phase("starting Ray")
        with cluster.connect(self._options.ray_address, self._observer.note):
            files = put_model(work.bundle, work.settings)
            more = (ray.put(argument) for argument in work.more)
            pool = ShardPool(work.pool.limited_to(work.count), self._factory, work.spec, files, *more, kind=self._kind)
            self._observer.phase(doing)
            return pool.run(work.shards(), on_done, on_progress, should_stop, self._observer.note)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._lone is not None:
            self._lone.close()
            self._lone = None

    def _run_alone(
        self,
        work: ShardWork,
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        # What an earlier run left over has had the first.
        lone, self._lone = self._lone or lone_worker(self._factory.__module__), None
        with lone:
            arguments = (work.spec, work.bundle.to_files(), *work.more)
            patience = 3 * self._options.image_timeout
            return lone.run(self._factory, arguments, work.shards(), on_done, on_progress, should_stop, patience)
