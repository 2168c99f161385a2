"""Training across two hosts with addresses of their own: two network namespaces, a cable between them, Ray on each."""

import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.plugins.isolation import RAY_REPORTS_NOTHING, child_path
from tests.processes import environment_without_ray
from tests.trainings import assert_each_once_an_epoch, job, kept, options, write_scenes

HOSTS = ("10.213.77.1", "10.213.77.2")
INTERFACE = "cable0"
PORT = 6399

OPTIONS = {
    "workers": 2,
    "placement": "STRICT_SPREAD",
    "backend": "gloo",
    "network_interface": INTERFACE,
    "backend_timeout": 60,
    "val_split": None,
    "record_examples": True,
    "train": {"steps": 6},
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two namespaces that see each other and nothing else."""
    mark = uuid.uuid4().hex[:6]
    names = [f"fcn-{mark}-{number}" for number in (1, 2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip(
                "link",
                "add",
                f"v{mark}",
                "netns",
                names[0],
                "type",
                "veth",
                "peer",
                "name",
                f"v{mark}",
                "netns",
                names[1],
            )
            for name, address in zip(names, HOSTS, strict=True):
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", f"v{mark}", "name", INTERFACE)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", INTERFACE)
                ip("-n", name, "link", "set", INTERFACE, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"this machine does not let us make network namespaces: {reason.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hosts_train_together_over_the_interface_that_was_named(hosts: list[str], tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    root = str(Path(__file__).parents[2])
    environment = environment_without_ray() | {
        "PYTHONPATH": child_path(),
        **RAY_REPORTS_NOTHING,
        "RAY_AUTH_MODE": "disabled",
    }
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--block", "--num-cpus", "1", "--object-store-memory", "100000000", "--disable-usage-stats"]
    commands = [
        ["--head", "--port", str(PORT), "--include-dashboard", "false"],
        ["--address", f"{HOSTS[0]}:{PORT}"],
    ]
    nodes: list[subprocess.Popen[bytes]] = []
    sessions = tempfile.mkdtemp(prefix="fcn-", dir="/tmp")  # Ray's sockets want a short path
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(options(tmp_path, ray_address=f"{HOSTS[0]}:{PORT}", **OPTIONS)))
    try:
        for name, address, command in zip(hosts, HOSTS, commands, strict=True):
            here = ["ip", "netns", "exec", name, ray, "start", "--node-ip-address", address, "--temp-dir", sessions]
            with (tmp_path / f"{address}.log").open("wb") as log:
                node = subprocess.Popen([*here, *command, *common], stdout=log, stderr=log, env=environment, cwd=root)
            nodes.append(node)
        driver = subprocess.run(
            ["ip", "netns", "exec", hosts[0], sys.executable, "-c", WAIT_AND_TRAIN, str(file)],
            capture_output=True,
            text=True,
            timeout=850,
            env=environment,
            cwd=root,
        )
        logs = "".join(path.read_text(errors="replace")[-2000:] for path in tmp_path.glob("*.log"))
        assert driver.returncode == 0, driver.stderr + logs
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(timeout=60)
        shutil.rmtree(sessions, ignore_errors=True)
    assert f"places={list(HOSTS)}" in driver.stdout
    store = kept(job(tmp_path, **OPTIONS))
    assert_each_once_an_epoch(store, examples=12, steps=6, batch_size=4)
    checkpoint = store.newest_checkpoint()
    assert checkpoint is not None
    assert all(folder.endswith("-of-2") for folder in checkpoint.examples)


WAIT_AND_TRAIN = f"""
import socket, sys, time
import ray
from pipeline.cli.app import run

deadline = time.monotonic() + 300
while not ray.is_initialized():
    try:
        socket.create_connection(("{HOSTS[0]}", {PORT}), timeout=1).close()
        ray.init("{HOSTS[0]}:{PORT}", log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError):
        assert time.monotonic() < deadline, "the first host's Ray did not start"
        time.sleep(1)
while len(alive := [node for node in ray.nodes() if node["Alive"]]) < 2:
    assert time.monotonic() < deadline, "the second host's Ray did not join"
    time.sleep(0.5)
print(f"places={{sorted(node['NodeManagerAddress'] for node in alive)}}", flush=True)
ray.shutdown()
sys.exit(run(["train", sys.argv[1]]))
"""
