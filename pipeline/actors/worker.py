"""The Ray actor that works on shards, and the one place where such actors are made.

The actor knows nothing of images: what it does with a shard is a `Processor`, built inside it by a factory.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import container
from pipeline.actors.metrics import DEVICE_BUSY, JobKind, Recorder
from pipeline.actors.read_ahead import SHARDS_IN_FLIGHT
from pipeline.logfmt import key_values
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

log = logging.getLogger(__name__)

BUSY_SECONDS = 2.0
"""How often an actor reports how busy its device is."""

BUSY_WINDOW_SECONDS = 60.0


class Processor(Protocol):
    """What runs inside an actor."""

    def process(self, shard: Shard) -> Any:
        """Work on a shard and commit it. Called from SHARDS_IN_FLIGHT threads."""

    def probe(self, entry: ObjectInfo) -> None:
        """Do all that `process` does with one image, and keep nothing of it. Raises whatever goes wrong."""

    def progress(self) -> dict[int, int]:
        """Images finished in each shard at work."""

    def busy_seconds(self) -> float:
        """How long the device has been at work so far."""


@dataclass(frozen=True)
class WorkerSpec:
    """What an actor needs, and how its Processor is made: `factory(*args)`; `args` may be Ray object references."""

    cpus: float
    gpus: float
    factory: Callable[..., Processor]
    args: tuple[Any, ...] = ()
    kind: JobKind = "segment"


class _ShardWorker:
    """The actor. `setup` is apart from the constructor so that its exceptions arrive as they are."""

    def setup(self, kind: JobKind, factory: Callable[..., Processor], *args: Any) -> tuple[str, int | None]:
        """Build the processor; returns the id of the node this is, and `container.oom_kills` there."""
        _log_to_stderr()
        self._processor = factory(*args)
        threading.Thread(target=_report_busy, args=(kind, self._processor), name="busy", daemon=True).start()
        return str(ray.get_runtime_context().get_node_id()), container.oom_kills()

    def process(self, shard: Shard) -> Any:
        try:
            return self._processor.process(shard)
        except Exception as error:
            log.warning("%s", key_values(shard=shard.number, attempt=shard.attempt, failed=f"{error!r}"))
            raise

    def probe(self, entry: ObjectInfo) -> None:
        self._processor.probe(entry)

    @ray.method(concurrency_group="control")
    def progress(self) -> dict[int, int]:
        # The actor is reachable before `setup` has finished.
        processor = getattr(self, "_processor", None)
        return processor.progress() if processor else {}


def _log_to_stderr() -> None:
    """Let this package's lines go to the actor's own log, which Ray keeps (worker-*.err), and others' warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)


def _report_busy(kind: JobKind, processor: Processor) -> None:
    """Report, for as long as the process lives, which share of the last minute its device was at work."""
    recorder = Recorder(kind)
    marks: deque[tuple[float, float]] = deque([(time.monotonic(), processor.busy_seconds())])
    while True:
        time.sleep(BUSY_SECONDS)
        now, busy = time.monotonic(), processor.busy_seconds()
        since, before = marks[0]
        # A batch counts when it is done, so that a long one may count for more than the time since the last look.
        recorder.set(DEVICE_BUSY, min(1.0, (busy - before) / (now - since)))
        marks.append((now, busy))
        while now - marks[0][0] > BUSY_WINDOW_SECONDS:
            marks.popleft()


# Control calls have threads of their own, so that they never wait behind shards. Ray's type hints know nothing of this.
_SHARD_ACTOR: Any = ray.remote(concurrency_groups={"control": 2})(_ShardWorker)  # type: ignore[call-overload]


def start_worker(spec: WorkerSpec, node_id: str | None = None) -> tuple[Any, Any]:
    """A new actor's handle, and the reference that resolves to what `setup` returns once it is ready.

    With `node_id` it runs there or not at all; else Ray spreads actors over the nodes.
    """
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "SPREAD"
    handle = _SHARD_ACTOR.options(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        max_concurrency=SHARDS_IN_FLIGHT,
        scheduling_strategy=strategy,
        max_restarts=0,
    ).remote()
    return handle, handle.setup.remote(spec.kind, spec.factory, *spec.args)
