"""The container image, built and run for real, as closed as the manifests run it.

Skipped unless the environment names an engine and a base image: see `tests.deploy.containers`.
"""

import json
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.config import Config
from PIL import Image

from tests.deploy.containers import (
    ENGINE,
    Network,
    build,
    engine,
    healthy,
    image_of,
    needs_engine,
    network,
    run,
    stand_in,
    wait_until_healthy,
)
from tests.samples import fill

pytestmark = [needs_engine, pytest.mark.long, pytest.mark.timeout(3900)]

COUNT = 20
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a" * 64,
    "AWS_ACCESS_KEY_ID": "testkey",
    "AWS_SECRET_ACCESS_KEY": "testsecret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "FCN_HEALTH_URLS": "http://127.0.0.1:52365/api/healthz",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def image() -> str:
    return build()


def test_it_is_not_root_and_may_write_nowhere_but_where_it_is_told(image: str) -> None:
    done = run(
        image,
        "bash",
        "-c",
        "id -u; grep CapEff /proc/self/status; touch /opt/fcn/x /home/fcn/x; touch /tmp/x && echo ok",
    )
    assert done.stdout.split() == ["10001", "CapEff:", "0000000000000000", "ok"]
    assert done.stderr.count("Read-only file system") == 2


def test_it_says_how_it_is(image: str) -> None:
    (found,) = json.loads(engine("image", "inspect", image).stdout)
    assert found["Config"]["User"] == "10001:10001"
    # Podman has it beside Config.
    check = found.get("Healthcheck") or found["Config"]["Healthcheck"]
    assert check["Test"] == ["CMD", "python", "/opt/fcn/healthcheck.py"]
    assert "Usage: fcn" in run(image).stdout


def test_nothing_of_the_build_stays_in_it(image: str) -> None:
    done = run(image, "bash", "-c", "ls -A /src /wheel /run/secrets /root/.cache /etc/pip.conf; python -m pip check")
    assert done.stdout == "No broken requirements found.\n"


def test_the_doctor_is_content(image: str) -> None:
    done = run(image, "fcn", "doctor")
    assert "PyTorch" in done.stdout


def test_twenty_images_are_labelled_from_one_mounted_folder_into_another(
    image: str, model_dir: Path, tmp_path: Path
) -> None:
    keys = fill(tmp_path / "photos", COUNT)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels").chmod(0o777)
    model_dir.parent.chmod(0o755)
    mounts = [
        word
        for source, target in (
            (tmp_path / "photos", "/photos:ro"), (tmp_path / "labels", "/labels"), (model_dir, "/model:ro"),
        )
        for word in ("--volume", f"{source}:{target}")
    ]  # fmt: skip
    run(image, "fcn", "segment", "/photos", "/labels", "--model", "/model", options=(*mounts, "--shm-size", "256m"))
    masks = {path.name.split(".")[0]: path for path in (tmp_path / "labels" / "masks").rglob("*.png")}
    assert masks.keys() == {key.split(".")[0] for key in keys}
    for path in masks.values():
        assert np.asarray(Image.open(path)).shape == (72, 96)


def test_a_head_and_a_worker_label_a_bucket_and_a_node_whose_ray_has_died_is_not_well(
    image: str, model_dir: Path, tmp_path: Path
) -> None:
    stand_in(ENGINE, "s3", image_of("s3"))
    with network() as site:
        client = start_s3(site)
        fill_bucket(client, model_dir, tmp_path)
        environment = RAY | {"AWS_ENDPOINT_URL": "http://s3:9000"}
        start = ("--metrics-export-port=8080", "--disable-usage-stats", "--object-store-memory=100000000")
        head = site.start(
            "ray-head", image, "ray", "start", "--head", "--block", "--port=6379", "--num-cpus=0", *start,
            environment=environment,
        )  # fmt: skip
        wait_until_healthy(head)
        # Without --block, as the Prefect worker's node is started: the container outlives its Ray.
        script = f"ray start --address=ray-head:6379 --num-cpus=2 {' '.join(start)} && exec sleep infinity"
        worker = site.start("ray-worker", image, "bash", "-c", script, environment=environment)
        wait_until_healthy(worker)
        done = engine(
            "exec", head, "fcn", "segment", "s3://streets/photos", "s3://streets/labels",
            "--model", "s3://streets/model", "--ray-address", "ray-head:6379",
            "--actors", "1", "--cpus-per-actor", "1",
        )  # fmt: skip
        found = client.list_objects_v2(Bucket="streets", Prefix="labels/masks/")
        assert found["KeyCount"] == COUNT, done.stdout + done.stderr
        assert healthy(worker)
        engine("exec", worker, "ray", "stop", "--force", check=False)
        assert not healthy(worker)
        assert healthy(head)


def start_s3(site: Network) -> Any:
    """An S3 endpoint in a container of its own. Returns this machine's client of it."""
    script = """echo '{"accessAccounts": {}}' > /tmp/users.json && exec versitygw posix /tmp"""
    environment = {
        "ROOT_ACCESS_KEY_ID": "testkey", "VGW_PORT": ":9000", "VGW_IAM_DIR": "/tmp", "VGW_HEALTH": "/health",
    }  # fmt: skip
    name = site.start(
        "s3", image_of("s3"), "sh", "-c", script, environment=environment, options=("--publish", "127.0.0.1::9000")
    )
    address = engine("port", name, "9000").stdout.split()[-1]
    retries = Config(retries={"total_max_attempts": 30, "mode": "standard"})
    return boto3.client(
        "s3", endpoint_url=f"http://{address}", aws_access_key_id="testkey", aws_secret_access_key="testsecret",
        region_name="us-east-1", config=retries,
    )  # fmt: skip


def fill_bucket(client: Any, model_dir: Path, folder: Path) -> None:
    client.create_bucket(Bucket="streets")
    for key in fill(folder, COUNT):
        client.upload_file(str(folder / key), "streets", f"photos/{key}")
    for path in model_dir.iterdir():
        client.upload_file(str(path), "streets", f"model/{path.name}")
