"""deploy/compose for real: the whole site up, a night scheduled, cancelled and run, a Ray worker killed, alerts, down.

FCN_SITE_DOCKER  the address of a Docker engine, such as unix:///var/run/docker.sock; without it these tests are skipped

The ports of compose.yaml have to be free. Images that cannot be pulled have stand-ins, built from `standins/Dockerfile`
on FCN_BASE_IMAGE; FCN_VARIANT is the image's, which is built when it is not there.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.deploy.containers import image_of, stand_in
from tests.deploy.manifests import DEPLOY, ROOT
from tests.samples import fill

DOCKER = os.environ.get("FCN_SITE_DOCKER")
PROJECT = "fcn-test-site"
PROGRAMS = Path(sys.executable).parent
STAND_INS = ("postgres", "prometheus", "grafana", "s3")
COUNT = 20

pytestmark = [
    pytest.mark.skipif(DOCKER is None, reason="FCN_SITE_DOCKER names no Docker engine: CONTRIBUTING.md says how"),
    pytest.mark.long,
    pytest.mark.timeout(3600),
]


@dataclass(frozen=True)
class Site:
    """`secrets` are those of .env."""

    secrets: Mapping[str, str]
    folder: Path

    def compose(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [
                PROGRAMS / "docker-compose", "--project-name", PROJECT, "--file", DEPLOY / "compose" / "compose.yaml",
                "--env-file", self.folder / ".env", *words,
            ],
            env=os.environ | {"DOCKER_HOST": str(DOCKER)}, capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        return done.stdout

    def prefect(self, *words: str) -> str:
        """A command of Prefect's in the checkout, as docs/deploy.md says."""
        environment = {
            "PREFECT_API_URL": "http://127.0.0.1:4200/api",
            "PREFECT_API_AUTH_STRING": self.secrets["PREFECT_AUTH_STRING"],
            "PREFECT_HOME": str(self.folder / "prefect"),
            "FCN_SOURCE": "s3://cameras/2026",
            "FCN_OUTPUT": "s3://labels/2026",
            "FCN_REGISTRY": "s3://models/registry",
            "FCN_MODEL_NAME": "street",
            "FCN_DATASET": "s3://cameras/data",
            "FCN_TRAINING": "s3://trainings/street",
            "RAY_API_SERVER_ADDRESS": "http://ray-head:8265",
        }
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *words],
            cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, body: object) -> Any:
        """Prefect's API."""
        import base64

        password = base64.b64encode(self.secrets["PREFECT_AUTH_STRING"].encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:4200/api/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Basic {password}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def runs(self, **state: object) -> list[dict[str, Any]]:
        chosen = {"flow_runs": {"state": state}} if state else {}
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", {**chosen, "sort": "EXPECTED_START_TIME_ASC"})
        return found

    @property
    def s3(self) -> Any:
        return boto3.client(
            "s3", endpoint_url="http://127.0.0.1:9000", region_name="us-east-1",
            aws_access_key_id=self.secrets["S3_ACCESS_KEY"], aws_secret_access_key=self.secrets["S3_SECRET_KEY"],
        )  # fmt: skip

    def masks(self, output: str) -> int:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket="labels", Prefix=f"{output}/masks/")
        return sum(page["KeyCount"] for page in pages)

    def put_images(self, place: str, folder: Path) -> None:
        for path in folder.iterdir():
            self.s3.upload_file(str(path), "cameras", f"{place}/{path.name}")


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", "--host", str(DOCKER), *words], capture_output=True, text=True, timeout=1800, check=False
    )
    assert not check or done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def wait(seconds: float, true: Callable[[], Any], what: str) -> Any:
    give_up = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < give_up, what
        time.sleep(2)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    text = subprocess.run(
        [sys.executable, DEPLOY / "make_secrets.py", "compose", "--output", "-"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # A CPU for each worker; the machine has few.
    (folder / ".env").write_text(text + "RAY_WORKER_CPUS=1\n")
    made = Site(dict(line.split("=", 1) for line in text.splitlines()), folder)
    for service in STAND_INS:
        stand_in(["docker", "--host", str(DOCKER)], service, image_of(service))
    try:
        made.compose("up", "--wait", "--wait-timeout", "900")
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans")
        for kind in ("container", "network", "volume"):
            words = ("--all",) if kind == "container" else ()
            left = docker(kind, "ls", *words, "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
            assert left == "", f"a {kind} is left"


@pytest.fixture(scope="module")
def working(site: Site, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With a champion, images, and the deployments of prefect.yaml."""
    model_dir.chmod(0o755)
    for part in ("prefect-worker", "ray-worker"):
        site.compose("cp", str(model_dir), f"{part}:/tmp/model")
    fcn = ("exec", "-T", "prefect-worker", "fcn", "registry")
    version = json.loads(site.compose(*fcn, "publish", "street", "/tmp/model", "--json"))["version"]
    site.compose(*fcn, "promote", "street", version, "--reason", "the first")
    photos = tmp_path_factory.mktemp("photos")
    fill(photos, COUNT)
    site.put_images("2026", photos)
    site.prefect("deploy", "-n", "nightly", "-n", "adhoc")
    return site


def test_every_part_is_well(site: Site) -> None:
    parts = [json.loads(line) for line in site.compose("ps", "--all", "--format", "json").splitlines()]
    states = {
        part["Name"].removeprefix(f"{PROJECT}-"): (part["State"], part["Health"], part["ExitCode"]) for part in parts
    }
    assert states.pop("s3-buckets-1") == ("exited", "", 0)
    assert len(states) == 9, states
    for name, (state, health, _) in states.items():
        assert (state, health) == ("running", "" if name == "grafana-1" else "healthy"), name


def test_a_ray_worker_may_read_models_and_write_none(working: Site) -> None:
    fcn = ("exec", "-T", "ray-worker", "fcn", "registry")
    assert "street" in working.compose(*fcn, "list")
    with pytest.raises(AssertionError, match=r"AccessDenied|403"):
        working.compose(*fcn, "publish", "road", "/tmp/model")


def test_a_night_appears_by_itself_one_is_cancelled_and_one_is_completed(working: Site) -> None:
    nights = wait(120, lambda: working.runs(type={"any_": ["SCHEDULED"]}), "no night is scheduled")
    assert nights[0]["name"]
    working.prefect("flow-run", "cancel", nights[0]["id"])
    wait(120, lambda: working.runs(type={"any_": ["CANCELLED"]}), "it is not cancelled")
    working.prefect("deployment", "run", "segment/nightly", "--watch")
    assert working.masks("2026") == COUNT
    (done,) = working.runs(type={"any_": ["COMPLETED"]})
    assert done["deployment_id"] == nights[0]["deployment_id"]


def test_a_ray_worker_killed_in_the_middle_loses_nothing(working: Site, tmp_path: Path) -> None:
    count = 300
    fill(tmp_path, count, size=(640, 480))
    working.put_images("more", tmp_path)
    job = {
        "source": "s3://cameras/more", "output": "s3://labels/more", "model": "registry:street@champion",
        "registry": "s3://models/registry", "actors": 2, "cpus_per_actor": 1, "shard_size": 20,
    }  # fmt: skip
    working.prefect("deployment", "run", "segment/adhoc", "--param", f"job={json.dumps(job)}")
    wait(600, lambda: working.masks("more"), "no mask is written")
    docker("kill", f"{PROJECT}-ray-worker-1")
    wait(900, lambda: working.masks("more") == count, "masks are missing")
    wait(120, lambda: len(working.runs(type={"any_": ["COMPLETED"]})) == 2, "the run does not end")
    docker("start", f"{PROJECT}-ray-worker-1")


def prometheus(path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:9090/api/v1/{path}", timeout=60) as answer:
        return json.load(answer)["data"]


def test_prometheus_has_every_node_and_every_rule(site: Site) -> None:
    def well() -> bool:
        targets = prometheus("targets")["activeTargets"]
        return len(targets) == 4 and all(target["health"] == "up" for target in targets)

    wait(120, well, str(prometheus("targets")))
    (group,) = prometheus("rules")["groups"]
    assert len(group["rules"]) == 6
    wait(120, lambda: {rule["health"] for rule in prometheus("rules")["groups"][0]["rules"]} == {"ok"}, "a rule fails")


def test_an_alert_fires_when_images_fail(working: Site, tmp_path: Path) -> None:
    """FcnImagesFail, which comes five minutes after the share of images without a mask has passed its limit."""
    for index in range(1000):
        (tmp_path / f"{index:04d}.jpg").write_bytes(b"no image")
    fill(tmp_path, 1000, start=1000)
    working.put_images("broken", tmp_path)
    job = {
        "source": "s3://cameras/broken", "output": "s3://labels/broken", "model": "registry:street@champion",
        "registry": "s3://models/registry", "actors": 1, "cpus_per_actor": 1, "shard_size": 50, "max_error_rate": 1.0,
    }  # fmt: skip
    working.prefect("deployment", "run", "segment/adhoc", "--param", f"job={json.dumps(job)}")

    def firing() -> list[Any]:
        return [alert for alert in prometheus("alerts")["alerts"] if alert["state"] == "firing"]

    (alert,) = wait(1200, firing, str(prometheus("rules")))
    assert alert["labels"]["alertname"] == "FcnImagesFail"
    assert "of the images of a job (segment) have no mask" in alert["annotations"]["summary"]
