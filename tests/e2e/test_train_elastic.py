"""Workers come and go with the cluster's nodes, and no example is skipped or doubled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.isolation import RAY_REPORTS_NOTHING, child_path
from tests.processes import environment_without_ray
from tests.trainings import assert_each_once_an_epoch, job, kept, write_scenes

OPTIONS = {
    "workers": [1, 2],
    "resize_interval": 1,
    "val_split": None,
    "record_examples": True,
    "save_every": 2,
    "train": {"steps": 100},
}
EXAMPLES = 8
"""What each worker reads before it waits: four steps of two workers, two steps of one."""

DRIVER = """
import json, sys
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from pipeline.actors.ray_start import adapted_start
from pipeline.training.job import train
from tests.trainings import Gate, Watcher, job

place, options, examples = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
# A node that is gone is noticed in seconds, not in fifteen.
quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": quick}
with adapted_start():
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False)  # before there is a second node that the driver could be on
    second = [cluster.add_node(num_cpus=1)]
gate = Gate(Path(place) / "gate", examples)
seen, numbers = set(), []

def change():
    waiting = set(gate.waiting()) - seen
    if len(waiting) < (2, 1, 2)[len(numbers)]:
        return False
    seen.update(waiting)
    numbers.append(len(waiting))
    if len(numbers) == 1:
        cluster.remove_node(second.pop(), allow_graceful=False)
    elif len(numbers) == 2:
        with adapted_start():
            second.append(cluster.add_node(num_cpus=1))
    return len(numbers) == 3

watcher = Watcher()
with gate.closed():
    report = train(job(place, **options), watcher, change)
print(json.dumps({"state": report.state, "steps": report.steps, "workers": watcher.workers, "notes": watcher.notes}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_training_goes_on_with_one_worker_less_and_then_with_one_more(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    environment = environment_without_ray()
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), json.dumps(OPTIONS), str(EXAMPLES)],
        capture_output=True,
        text=True,
        timeout=850,
        env=environment | RAY_REPORTS_NOTHING | {"PYTHONPATH": child_path(), "RAY_AUTH_MODE": "disabled"},
        cwd=Path(__file__).parents[2],
    )
    assert driver.returncode == 0, driver.stdout + driver.stderr
    (line,) = [line for line in driver.stdout.splitlines() if line.startswith("{")]
    report = json.loads(line)
    assert report["workers"] == [2, 1, 2], report
    assert report["state"] == "interrupted"
    assert report["steps"] == 4 + 2 + 4 + 1, "two workers, one, two again, and the step that these ended"
    store = kept(job(tmp_path, **OPTIONS))
    assert store.checkpoint_steps() == [10, 11]
    assert_each_once_an_epoch(store, examples=12, steps=11, batch_size=4)
    losses = [point.step for point in store.load_history().losses]
    assert losses == list(range(1, 12)), "one curve, without a gap or an overlap"
