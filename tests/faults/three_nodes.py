"""A cluster of three Ray nodes in a process of its own, and what is done to it. Run as a script by test_nodes.

It reads one JSON request per line and answers each with one line: {"ok": ...}, or {"error": traceback}. Everything runs
on one cluster: a head that holds the driver and no actors, and two nodes with room for one actor each.
"""

import json
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from pipeline.actors.pool import ShardPool
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo
from tests.faults.harness import Moment, Striker, run_under_fire

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 10}
"""A node that is gone is noticed in ten seconds, not in fifteen; a busy one is not taken for gone."""

ENTRY = ObjectInfo("a.jpg", "e", 1, datetime(2026, 1, 1, tzinfo=UTC))

PATIENCE = 200.0
"""Seconds until an actor stops waiting for what the test promised it."""


class Waits:
    """Notes each shard and its node in `notes`, then holds it until there are `marks` of what it waits for."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes
        self.node = str(ray.get_runtime_context().get_node_id())

    def process(self, shard: Shard) -> str:
        (self.notes / f"{self.node}.{shard.number}").touch()
        deadline = time.monotonic() + PATIENCE
        while not self.may_go() and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.node

    def may_go(self) -> bool:
        """Whether the notice was seen."""
        return (self.notes / "go").exists()

    def probe(self, entry: ObjectInfo) -> None: ...

    def progress(self) -> dict[int, int]:
        return {}

    def busy_seconds(self) -> float:
        return 0.0


class WaitsForCompany(Waits):
    """Holds its shards until a second node has one."""

    def may_go(self) -> bool:
        return len({note.name.partition(".")[0] for note in self.notes.iterdir()}) > 1


class Nodes:
    """The cluster."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(self.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        self.complete()

    def complete(self) -> list[Any]:
        """Have two nodes again; returns them."""
        while len(self.cluster.worker_nodes) < 2:
            self.cluster.add_node(num_cpus=1)
        return sorted(self.cluster.worker_nodes, key=lambda node: str(node.node_id))

    def kill(self, job: str, seed: int) -> dict[str, Any]:
        """SIGKILL one node in the middle of a job."""
        nodes = self.complete()
        work = SegmentJob.model_validate_json(job)

        def strike(moment: Moment) -> list[str]:
            if not (striker.last and striker.last.actors):
                return []  # a node without an actor is no loss
            victim = moment.random.choice(nodes)
            self.cluster.remove_node(victim, allow_graceful=False)
            return [str(victim.node_id)]

        striker = Striker(Moment("node", seed), Path(work.output), strike)
        report = run_under_fire(work, striker)
        return {"ok": report.counts.ok, "errors": report.counts.errors}

    def join(self, notes: str) -> dict[str, Any]:
        """Begin a pool with one node, and add the other when its actor is at work."""
        spare, _ = self.complete()
        self.cluster.remove_node(spare)

        def on_progress(state: PoolProgress) -> None:
            if state.shards_in_flight:
                self.complete()

        pool = ShardPool(PoolSpec(actors=1, cpus=1, grow_to=2), WaitsForCompany, Path(notes))
        done: list[str] = []
        pool.run(shards(8), done.append, on_progress, lambda: False)
        return {"nodes": len(set(done)), "shards": len(done)}

    def drain(self, notes: str) -> dict[str, Any]:
        """Announce the end of a node while its actor holds two shards, which then finish."""
        self.complete()
        folder = Path(notes)
        announced: list[str] = []
        states: list[PoolProgress] = []
        done: list[str] = []

        class Notice(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "draining" in record.getMessage():
                    (folder / "go").touch()

        def on_progress(state: PoolProgress) -> None:
            states.append(state)
            held = Counter(note.name.partition(".")[0] for note in folder.iterdir())
            if not announced and len(held) == 2 and set(held.values()) == {2}:
                announced.append(min(held))
                preempt(self.cluster.address, announced[0])

        handler = Notice()
        logging.getLogger("pipeline.actors").addHandler(handler)
        try:
            ShardPool(PoolSpec(actors=2, cpus=1), Waits, folder).run(
                shards(20), done.append, on_progress, lambda: False
            )
        finally:
            logging.getLogger("pipeline.actors").removeHandler(handler)
        for node in list(self.cluster.worker_nodes):
            if node.node_id == announced[0]:
                self.cluster.remove_node(node)
        return {
            "shards": len(done),
            "on_the_node_that_went": done.count(announced[0]),
            "restarts": states[-1].restarts,
            "retries": states[-1].retries,
        }


def preempt(address: str, node_id: str) -> None:
    """What a cloud's notice becomes in Ray: the node will be taken away in a minute."""
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline = int(time.time() * 1000) + 60_000
    accepted, why_not = GcsClient(address=address).drain_node(node_id, reason, "test", deadline)
    assert accepted, why_not


def shards(count: int) -> Iterator[Shard]:
    return (Shard(number, (ENTRY,)) for number in range(count))


def main() -> None:
    # Ray writes to standard output, too.
    answers, sys.stdout = sys.stdout, sys.stderr
    nodes = Nodes()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            act: Callable[..., dict[str, Any]] = getattr(nodes, request.pop("do"))
            answer: dict[str, Any] = {"ok": act(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
    ray.shutdown()
    nodes.cluster.shutdown()


if __name__ == "__main__":
    main()
