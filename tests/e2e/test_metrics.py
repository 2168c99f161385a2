"""Metrics as Prometheus finds them: all of the dashboard's and no other, and their numbers are those of the report."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import kill
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from pipeline import train
from pipeline.outputs import runs
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests import trainings
from tests.deploy.dashboard import expressions, selected
from tests.gate import Gate, gated_images
from tests.log_lines import parse
from tests.processes import ours

IMAGES = 12
WIDTH, HEIGHT = 48, 32
pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]  # a minute where nothing else runs

PATIENCE = 240.0

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Scrapes:
    """What the exporter of this machine's Ray said, every half second: the newest value of every fcn_* series."""

    url: str
    values: dict[Series, float] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def look(self) -> None:
        with urllib.request.urlopen(self.url, timeout=30) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        ours = [family for family in families if family.name.startswith("ray_fcn_")]
        # New objects each time, for whoever reads them meanwhile.
        self.names = self.names | {family.name + ("_total" if family.type == "counter" else "") for family in ours}
        samples = [sample for family in ours for sample in family.samples]
        self.values = self.values | {
            (sample.name, frozenset(sample.labels.items())): sample.value for sample in samples
        }

    def wait_until(self, seen: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not seen() and time.monotonic() < deadline:
            time.sleep(0.05)
        return seen()

    def total(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        series = ((found, dict(tags), value) for (found, tags), value in self.values.items())
        return sum(value for found, tags, value in series if found == name and wanted <= tags.items())

    def tags(self, name: str, label: str) -> set[str]:
        return {dict(tags)[label] for found, tags in self.values if found == name}

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            with contextlib.suppress(OSError):  # a busy exporter; the next look may be answered
                self.look()


@dataclass
class Run:
    """A labelling that lost its only actor on the way, as its report, its record and its log tell of it."""

    report: dict[str, object]
    photos: Store
    output: Path
    lines: list[dict[str, str]]
    worker_id: str
    scrapes: Scrapes


@pytest.fixture(scope="module")
def run(
    ray_cluster: None, s3_endpoint: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    with gated_images(s3_endpoint, IMAGES, (WIDTH, HEIGHT)) as gate:
        yield from lose_an_actor(gate, model_dir, tmp_path_factory.mktemp("metrics"))


def lose_an_actor(gate: Gate, model_dir: Path, place: Path) -> Iterator[Run]:
    """Label the images, and train beside that. The actor is lost after its first shard."""
    photos = open_store(gate.photos)
    whole = photos.get("0000.jpg")
    for index in range(3):
        photos.put(f"cut-{index}.jpg", whole[: len(whole) // 2])
    photos.put("text.jpg", b"no image")
    leaving = set(ours("ray::_ShardWorker"))
    node = ray.nodes()[0]
    scrapes = Scrapes(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
    try:
        scrapes.look()
        others = scrapes.tags("ray_fcn_images_total", "WorkerId") | {ray.get_runtime_context().get_worker_id()}
        words = f"segment {gate.source} {place}/labels --model {model_dir} --json --max-error-rate 1 --shard-size 4"
        words += " --actors 1 --cpus-per-actor 1 --gpus-per-actor 0 --device cpu --precision float32 --engine torch"
        words += f" --codec-workers 1 --ray-address {ray.get_runtime_context().gcs_address}"
        log = place / "log.txt"
        with log.open("w") as err:
            command = [Path(sys.executable).with_name("fcn"), *words.split()]
            driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)
        try:
            trainings.write_scenes(place / "data")
            with ThreadPoolExecutor(1) as thread:
                training = thread.submit(train, trainings.job(place))
                gate.allow(4)
                assert scrapes.wait_until(lambda: " shard=" in log.read_text() or driver.poll() is not None)
                (actor,) = set(ours("ray::_ShardWorker")) - leaving
                kill(actor, signal.SIGKILL)
                gate.allow(8)
                assert scrapes.wait_until(lambda: "ray_fcn_device_busy_ratio" in scrapes.names)
                gate.allow(IMAGES)
                out, _ = driver.communicate(timeout=PATIENCE)
                training.result()
        finally:
            gate.allow(IMAGES)
            driver.kill()
        assert driver.returncode == 0, log.read_text()
        everything = {name for expression in expressions() for name in selected(expression)}
        scrapes.wait_until(lambda: scrapes.names >= everything)
        assert scrapes.wait_until(lambda: bool(scrapes.tags("ray_fcn_images_total", "WorkerId") - others))
        (worker_id,) = scrapes.tags("ray_fcn_images_total", "WorkerId") - others
        lines = [parse(line) for line in log.read_text().splitlines() if re.match(r"time=\S+ (run|phase|note)=", line)]
        yield Run(json.loads(out), photos, place / "labels", lines, worker_id, scrapes)
    finally:
        scrapes.close()


def test_every_metric_of_the_dashboard_is_scraped_and_every_scraped_one_is_on_it(run: Run) -> None:
    assert run.scrapes.names == {name for expression in expressions() for name in selected(expression)}


def test_the_counters_are_the_numbers_of_the_report(run: Run) -> None:
    scrapes, driver = run.scrapes, run.worker_id

    def counted() -> dict[str, float]:
        reasons = scrapes.tags("ray_fcn_errors_total", "reason")
        found = {
            reason: scrapes.total("ray_fcn_errors_total", WorkerId=driver, reason=reason) for reason in sorted(reasons)
        }
        return {reason: count for reason, count in found.items() if count}

    assert scrapes.wait_until(lambda: scrapes.total("ray_fcn_images_total", WorkerId=driver) >= IMAGES + 4)
    assert counted() == run.report["errors"] == {"truncated": 3, "not_an_image": 1}
    assert scrapes.total("ray_fcn_images_total", WorkerId=driver, status="ok") == run.report["ok"] == IMAGES
    assert scrapes.total("ray_fcn_images_total", WorkerId=driver, status="error") == 4
    assert scrapes.total("ray_fcn_pixels_total", WorkerId=driver) == IMAGES * WIDTH * HEIGHT
    assert scrapes.total("ray_fcn_shards_total", WorkerId=driver) == (IMAGES + 4) / 4
    assert scrapes.total("ray_fcn_shard_seconds_count", WorkerId=driver) == (IMAGES + 4) / 4
    # What the lost actor had read of shards that it did not commit is read again.
    sizes = [info.size for info in run.photos.list()]
    assert scrapes.total("ray_fcn_read_bytes_total", WorkerId=driver) >= sum(sizes)
    assert scrapes.total("ray_fcn_written_bytes_total", WorkerId=driver) > 0


def test_a_lost_actor_and_its_shards_are_counted(run: Run) -> None:
    (run_id,) = run.report["runs"]  # type: ignore[misc]
    progress = runs.read_progress(open_store(str(run.output)), run_id)
    assert progress is not None
    restarts = run.scrapes.total("ray_fcn_actor_restarts_total", WorkerId=run.worker_id)
    lost = run.scrapes.total("ray_fcn_shard_retries_total", WorkerId=run.worker_id, reason="actor_lost")
    assert restarts == progress.restarts == 1
    assert lost == progress.retries >= 1
    assert run.scrapes.total("ray_fcn_shard_retries_total", WorkerId=run.worker_id, reason="storage") == 0


def test_every_stage_has_its_seconds(run: Run) -> None:
    for stage in ("fetch", "decode", "predict", "encode", "put", "commit"):
        assert run.scrapes.total("ray_fcn_stage_seconds_total", WorkerId=run.worker_id, stage=stage) > 0, stage
    busy = [value for (name, _), value in run.scrapes.values.items() if name == "ray_fcn_device_busy_ratio"]
    assert all(0 <= value <= 1 for value in busy)


def test_a_log_line_a_shard_says_how_often_it_was_tried_and_where_its_time_went(run: Run) -> None:
    shards = [line for line in run.lines if "shard" in line]
    assert sorted(int(line["shard"]) for line in shards) == list(range((IMAGES + 4) // 4))
    assert {line["run"] for line in shards} == {*run.report["runs"]}  # type: ignore[misc]
    assert {line["attempt"] for line in shards} == {"1", "2"}
    assert sum(int(line["ok"]) for line in shards) == IMAGES
    assert all(float(line["seconds"]) > 0 and float(line["commit_s"]) > 0 for line in shards)


def test_no_tag_grows_with_what_is_labelled(run: Run) -> None:
    found = {name for _, labels in run.scrapes.values for name, _ in labels}
    ours_ = {"kind", "status", "reason", "stage", "arch", "le"}
    rays = {"WorkerId", "NodeAddress", "SessionName", "Component", "Version", "JobId"}
    assert {name for name in found if not name.startswith("otel_")} <= ours_ | rays
