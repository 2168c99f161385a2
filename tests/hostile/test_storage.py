"""A whole labelling job through storage that fails a tenth of all requests, or changes bytes on their way."""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from pipeline.cli.app import run as fcn
from pipeline.storage.opening import open_store
from tests.containers import fill_all_kinds
from tests.faulty_s3 import FAULTS, FaultyS3, Weather
from tests.in_process import segment_in_process
from tests.samples import jpeg

IMAGES = 60
CALLS_AT_MOST = 3
"""Of the one command: preflight checks are made once and may meet a fault; then the same command goes on."""


@dataclass(frozen=True)
class Scene:
    """A bucket with photos, and what an undisturbed run made of them."""

    bucket: str
    model: Path
    calm: dict[str, bytes]

    def label(self, output: str, endpoint: str | None = None) -> int:
        """Run the command with source and output behind `endpoint`; returns its exit code."""
        place = f"s3://{self.bucket}/%s" + (f"?endpoint_url={endpoint}" if endpoint else "")
        return label(place % "photos", place % output, self.model)


def label(source: str, output: str, model: Path) -> int:
    options = ["--device", "cpu", "--cpus-per-actor", "1", "--actors", "1", "--shard-size", "5", "--no-report"]
    options += ["--engine", "torch", "--codec-workers", "1"]
    return fcn(["segment", source, output, "--model", str(model), *options])


def files_of(uri: str) -> dict[str, bytes]:
    """Masks and tables under an output, by name without the run's id."""
    store = open_store(uri)
    kept = ("masks/", "results/", "class_areas/", "class_totals/")
    found = [info.key for folder in kept for info in store.list(folder)]
    return {
        "/".join(part for part in key.split("/") if not part.startswith("run_id=")): store.get(key) for key in found
    }


@pytest.fixture(scope="module")
def scene(s3_endpoint: str, ray_cluster: None, model_dir: Path) -> Scene:
    bucket = f"storms-{uuid.uuid4().hex[:20]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    photos = open_store(f"s3://{bucket}/photos")
    for index in range(IMAGES):
        photos.put(f"cam/{index:03d}.jpg", jpeg(90 + index % 3, 70, seed=index))
    assert label(photos.uri, f"s3://{bucket}/calm", model_dir) == 0
    return Scene(bucket, model_dir, files_of(f"s3://{bucket}/calm"))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_tenth_of_all_requests_may_fail_and_nothing_differs(scene: Scene, s3_endpoint: str, seed: int) -> None:
    with FaultyS3(s3_endpoint, silence_seconds=1.5, weather=Weather(seed)) as proxy:
        codes = [scene.label(f"storm-{seed}", proxy.endpoint)]
        while codes[-1] != 0 and len(codes) < CALLS_AT_MOST:
            codes.append(scene.label(f"storm-{seed}", proxy.endpoint))
        print(f"seed {seed}: exit codes {codes}; {len(proxy.requests)} requests, of which failed {proxy.suffered}")
    assert codes[-1] == 0
    assert sum(proxy.suffered.values()) > 10
    assert files_of(f"s3://{scene.bucket}/storm-{seed}") == scene.calm


def test_requests_for_containers_may_fail_and_nothing_differs(
    bucket: str, s3_endpoint: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    fill_all_kinds(tmp_path, 45)
    photos = open_store(f"s3://{bucket}/photos")
    for path in tmp_path.iterdir():
        photos.put(path.name, path.read_bytes())
    assert label(photos.uri, f"s3://{bucket}/calm", model_dir) == 0
    kinds = tuple(kind for kind in FAULTS if kind != "corrupt")  # a range has no checksum
    with FaultyS3(s3_endpoint, silence_seconds=1.5, weather=Weather(4, rate=0.4, kinds=kinds)) as proxy:
        proxy.matches = lambda method, path: method == "GET" and re.search(r"/photos/.*(tar|parquet)", path) is not None
        place = f"s3://{bucket}/%s?endpoint_url={proxy.endpoint}"
        assert label(place % "photos", place % "storm", model_dir) == 0
    assert sum(proxy.suffered.values()) > 2
    assert files_of(f"s3://{bucket}/storm") == files_of(f"s3://{bucket}/calm")


def test_bytes_changed_on_their_way_never_reach_a_result(scene: Scene, s3_endpoint: str) -> None:
    with FaultyS3(s3_endpoint, weather=Weather(3, rate=0.2, kinds=("corrupt",))) as proxy:
        proxy.matches = lambda method, path: method == "GET" and "list-type" not in path
        assert scene.label("noisy", proxy.endpoint) == 0
    assert proxy.suffered["corrupt"] > 10
    assert files_of(f"s3://{scene.bucket}/noisy") == scene.calm
