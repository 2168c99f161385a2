"""How many actors can one driver keep busy, and what does that cost it?

The real ShardPool with real Ray actors, one process each, that only pretend to work: a shard holds the actor's "model",
a lock, for as long as it takes, and the pool keeps two shards with every actor, as in a labelling run. Three kinds of
shard, one after the other: long ones (is every actor busy?), empty ones (how many a second?), and ones so long that ten
end in a second (what does the driver use?). Start and end, when not all actors have work, are left out.

    python benchmarks/scaling.py --actors 1 16 64
"""

import argparse
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import ray
from rich.console import Console
from rich.table import Table

from pipeline.actors.meter import Meter
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.actors.pool import ShardPool
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

ENTRY = ObjectInfo("a.jpg", "e", 1, datetime(2026, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Phase:
    """`shards` of one kind, `seconds` each."""

    name: str
    shards: int
    seconds: float


@dataclass(frozen=True)
class Done:
    """One shard: which phase and actor, and when the model began and ended (time.monotonic, one for the machine)."""

    phase: int
    actor: str
    began: float
    ended: float


class Pretender:
    """A Processor that takes its time."""

    def __init__(self, phases: list[Phase]) -> None:
        self._phases = phases
        self._model = threading.Lock()
        self._name = ray.get_runtime_context().get_actor_id()

    def process(self, shard: Shard) -> Done:
        phase = phase_of(shard.number, self._phases)
        with self._model:
            began = time.monotonic()
            time.sleep(self._phases[phase].seconds)
            return Done(phase, self._name, began, time.monotonic())

    def probe(self, entry: ObjectInfo) -> None: ...

    def progress(self) -> dict[int, int]:
        return {}

    def busy_seconds(self) -> float:
        return 0.0


def phase_of(number: int, phases: list[Phase]) -> int:
    for index, phase in enumerate(phases):
        number -= phase.shards
        if number < 0:
            return index
    raise ValueError("beyond the last phase")


class Bench:
    """One pool through all phases."""

    def __init__(self, actors: int, phases: list[Phase]) -> None:
        self._actors = actors
        self._phases = phases
        self._done: list[Done] = []
        self._cpu: list[tuple[float, float]] = []
        self._ready = False
        shards = sum(phase.shards for phase in phases)
        self._meter = Meter("run", shards, shards, Observer())  # what a labelling run does with its progress

    def run(self) -> None:
        spec = PoolSpec(self._actors, cpus=0.001, placement_timeout=600)
        ShardPool(spec, Pretender, self._phases).run(self._shards(), self._note, self._look, lambda: False)

    def _shards(self) -> Iterator[Shard]:
        return (Shard(number, (ENTRY,)) for number in range(sum(phase.shards for phase in self._phases)))

    def _note(self, done: Done) -> None:
        self._done.append(done)
        self._meter.shard_done(ShardOutcome(len(self._done), 1, 1, {}, (), 1))

    def _look(self, state: PoolProgress) -> None:
        self._meter.update(state)
        self._cpu.append((time.monotonic(), time.process_time()))

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A phase's name, and its shards per second, share of time that actors were busy, and the driver's CPU."""
        for index, phase in enumerate(self._phases):
            by_actor: dict[str, list[Done]] = defaultdict(list)
            for done in self._done:
                if done.phase == index:
                    by_actor[done.actor].append(done)
            begin = max(min(done.began for done in work) for work in by_actor.values())
            end = min(max(done.ended for done in work) for work in by_actor.values())
            all_of_it = [done for work in by_actor.values() for done in work]
            busy = sum(max(0.0, min(done.ended, end) - max(done.began, begin)) for done in all_of_it)
            rate = sum(begin < done.ended <= end for done in all_of_it) / (end - begin)
            cpu = sum(b[1] - a[1] for a, b in pairwise(self._cpu) if begin <= a[0] and b[0] <= end)
            wall = sum(b[0] - a[0] for a, b in pairwise(self._cpu) if begin <= a[0] and b[0] <= end)
            share = busy / (self._actors * (end - begin))
            yield (
                str(len(by_actor)),
                f"{phase.name}, {phase.seconds:g} s",
                f"{rate:.1f}",
                f"{share:.1%}" if phase.seconds else "-",
                f"{cpu / wall:.1%}" if wall else "-",
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a long shard")
    parser.add_argument("--empty", type=int, default=5000, help="empty shards")
    options = parser.parse_args()

    table = Table(title="ShardPool with pretending actors, one process each")
    for name in ("actors", "shards", "shards/s", "actors busy", "driver, of a core"):
        table.add_column(name)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="warning")
    for actors in options.actors:
        phases = [
            # While the last actors come up, so that all are there for the rest.
            Phase("warm-up", actors * 4, 1.0),
            Phase("long", actors * 8, options.seconds),
            Phase("empty", options.empty, 0.0),
            Phase("ten a second", actors * 5, actors / 10),
        ]
        bench = Bench(actors, phases)
        bench.run()
        for row in list(bench.rows())[1:]:
            table.add_row(*row)
    ray.shutdown()
    Console().print(table)


if __name__ == "__main__":
    main()
