"""SIGKILL at random moments, to whatever works on a run: its output equals that of an undisturbed run, byte for byte.

All images are good, and the undisturbed results say so: a row that blames one would make the outputs differ.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from pipeline.segmentation.job import segment
from tests.faults.conftest import Site
from tests.faults.harness import (
    IMAGES,
    SHARDS,
    Moment,
    Striker,
    committed,
    differences,
    files_of,
    kill_processes,
    run_under_fire,
    small_job,
    wait_for,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_killed_actors_change_nothing(seed: int, site: Site, tmp_path: Path) -> None:
    moment = Moment("actor", seed)
    striker = Striker(moment, tmp_path / "labels", kill_processes("ray::_ShardWorker"))
    # The first seed, which `make test` has, on a single actor: each takes seconds to start.
    report = run_under_fire(small_job(site.source, tmp_path / "labels", site.model, actors=1 + min(seed, 1)), striker)
    assert report.counts.ok == IMAGES
    assert striker.last is not None
    assert striker.last.restarts >= 1
    assert differences(tmp_path / "labels", site.calm) == []


@pytest.mark.long
def test_killed_actors_change_nothing_where_masks_are_packed(site: Site, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    segment(small_job(site.source, calm, site.model, masks="tar", actors=1))
    striker = Striker(Moment("actor", 0), tmp_path / "labels", kill_processes("ray::_ShardWorker"))
    report = run_under_fire(small_job(site.source, tmp_path / "labels", site.model, masks="tar"), striker)
    assert report.counts.ok == IMAGES
    assert striker.last is not None
    assert striker.last.restarts >= 1
    undisturbed = files_of(calm)
    assert sum(name.startswith("mask_tars/") for name in undisturbed) == SHARDS
    assert differences(tmp_path / "labels", undisturbed) == []


def test_killed_codec_workers_change_nothing(seed: int, site: Site, tmp_path: Path) -> None:
    moment = Moment("codec worker", seed)
    striker = Striker(moment, tmp_path / "labels", kill_processes("pipeline.codec.worker_main"))
    report = run_under_fire(small_job(site.source, tmp_path / "labels", site.model, actors=1), striker)
    assert report.counts.ok == IMAGES
    assert striker.last is not None
    assert striker.last.restarts == 0, "a codec worker is no reason to lose its actor"
    assert differences(tmp_path / "labels", site.calm) == []


@pytest.mark.timeout(600)
def test_a_killed_driver_is_resumed_by_the_same_job(seed: int, site: Site, tmp_path: Path) -> None:
    moment = Moment("driver", seed)
    output = tmp_path / "labels"
    address = ray.get_runtime_context().gcs_address
    job = small_job(site.source, output, site.model, ray_address=address, actors=1)
    program = [sys.executable, "-m", "tests.faults.halting_driver", job.model_dump_json()]
    program += [str(moment.shards + 2), str(tmp_path / "never")]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(program, stderr=log, cwd=ROOT)
    wait_for(moment, output, lambda: driver.poll() is not None)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert committed(output) < SHARDS, "the blow came too late"

    report = segment(job)
    assert report.state == "finished"
    assert len(report.runs) == 1, "the unfinished run is continued, and nothing is left to plan"
    assert differences(output, site.calm) == []
