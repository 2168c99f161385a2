"""Workers come and go with the cluster's nodes, and no example is skipped or doubled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.isolation import child_path
from tests.trainings import assert_each_once_an_epoch, job, kept, write_scenes

OPTIONS = {
    "workers": [1, 2],
    "resize_interval": 2,
    "val_split": None,
    "record_examples": True,
    "save_every": 20,
    "log_every": 20,
    "train": {"steps": 100_000},
}

DRIVER = """
import json, sys, threading
import ray
from ray.cluster_utils import Cluster
from pipeline.training.job import train
from tests.trainings import Watcher, job

place, options = sys.argv[1], json.loads(sys.argv[2])
# A node that is gone is noticed in seconds, not in fifteen.
quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
cluster = Cluster(initialize_head=True, head_node_args=head)
ray.init(cluster.address, log_to_driver=False)  # before there is a second node that the driver could be on
second = [cluster.add_node(num_cpus=1)]
stop = threading.Event()
told = []

def change(progress):
    awaited = (2, 1, 2)[len(told)] if len(told) < 3 else None
    if progress.workers != awaited or progress.loss is None:
        return
    told.append((progress.workers, progress.step))
    print(json.dumps(told[-1]), flush=True)
    if len(told) == 1:
        cluster.remove_node(second.pop(), allow_graceful=False)
    elif len(told) == 2:
        second.append(cluster.add_node(num_cpus=1))
    else:
        stop.set()

watcher = Watcher(change)
report = train(job(place, **options), watcher, stop.is_set)
print(json.dumps({"state": report.state, "steps": report.steps, "notes": watcher.notes}), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.timeout(900)
def test_training_goes_on_with_one_worker_less_and_then_with_one_more(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), json.dumps(OPTIONS)],
        capture_output=True,
        text=True,
        timeout=1500,
        env=environment | {"PYTHONPATH": child_path(), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
        cwd=Path(__file__).parents[2],
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    *told, report = [json.loads(line) for line in driver.stdout.splitlines() if line.startswith(("[", "{"))]
    assert [workers for workers, _ in told] == [2, 1, 2], report
    assert report["state"] == "interrupted"
    store = kept(job(tmp_path, **OPTIONS))
    assert store.checkpoint_steps()[-1] == report["steps"]
    assert_each_once_an_epoch(store, examples=12, steps=report["steps"], batch_size=4)
    losses = [point.step for point in store.load_history().losses]
    assert losses == list(range(20, report["steps"] + 1, 20)), "one curve, without a gap or an overlap"
