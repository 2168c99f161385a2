"""How Ray says that it has ended an actor because its node runs out of memory: what nobody is blamed for."""

import os
import subprocess
import sys

import pytest

from tests.plugins.isolation import child_path

FULL_MEMORY = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "200"}
"""For Ray's memory monitor every machine is full."""

SCRIPT = """
import ray
from ray.exceptions import OutOfMemoryError
from pipeline.actors.cluster import private_ray
from pipeline.actors.worker import WorkerSpec, start_worker
from pipeline.outputs.shard import Shard
from tests.pipeline.actors.processors import Steady

with private_ray(1, 0):
    handle, ready = start_worker(WorkerSpec(1, 0, Steady, (600.0,)))
    for owed in (ready, handle.progress.remote(), handle.process.remote(Shard(0, ()))):
        try:
            ray.get(owed, timeout=120)
        except OutOfMemoryError:
            print("out of memory")
"""


@pytest.mark.long
def test_ray_tells_an_actor_that_it_ended_for_want_of_memory_from_one_that_died() -> None:
    environment = {**os.environ, **FULL_MEMORY, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": child_path()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert "out of memory" in done.stdout.splitlines(), done.stderr
