"""What listens for a private Ray, where, and whom it answers: no more than the table in docs/security.md says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.isolation import child_path
from tests.processes import environment_without_ray

PAGE = Path(__file__).resolve().parents[2] / "docs/security.md"

LOOPBACK_UP = """
import fcntl, socket, struct
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
"""

# In a process of its own: this one's Ray may be one that others join.
LOOK = """
import contextlib, json, os, time, urllib.error, urllib.request
import psutil, ray
from pipeline.actors import cluster

PORTS = ("MetricsExport", "DashboardAgentListen", "RuntimeEnvAgent")

def kind(process):
    name = process.name()
    if process == psutil.Process():
        return "driver"
    scripts = [os.path.basename(word) for word in process.cmdline()]
    if "monitor.py" in scripts:
        return "monitor"
    starts = "default_worker.py" in scripts  # it gets its title a moment later
    return "worker" if starts or name.startswith("ray::IDLE") else name.removeprefix("ray::").split()[0]

def status(port, path):
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    while True:
        try:
            return ask(f"http://127.0.0.1:{port}{path}", timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

with cluster.connect():
    ray.get(ray.remote(lambda: os.getpid()).remote())
    deadline = time.monotonic() + 30
    while min(ray.nodes()[0][f"{name}Port"] for name in PORTS) <= 0 and time.monotonic() < deadline:
        time.sleep(0.2)  # agents are later than the node
    (node,) = ray.nodes()
    if min(node[f"{name}Port"] for name in PORTS) <= 0:
        raise SystemExit(75)  # a busy machine is late with them, and another Ray may have them
    heard = []
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            heard += [(kind(process), each.laddr.ip.removeprefix("::ffff:"))
                      for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    answers = {
        "metrics": status(node["MetricsExportPort"], "/metrics"),
        "jobs": status(node["DashboardAgentListenPort"], "/api/job_agent/jobs/"),
        "health": status(node["DashboardAgentListenPort"], "/api/healthz"),
        "environments": status(node["RuntimeEnvAgentPort"], "/get_or_create_runtime_env"),
    }
    print(json.dumps({"heard": sorted(set(heard)), "answers": answers}))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a process with a private Ray hears of, and how it answers who has no token."""
    environment = environment_without_ray()
    # With a loopback of its own, where that can be had: agents have fixed ports, and other tests' Rays hold them here.
    apart = ["unshare", "--net"]
    is_apart = shutil.which("unshare") is not None and subprocess.run([*apart, "true"], check=False).returncode == 0
    command = (
        [*apart, sys.executable, "-P", "-c", LOOPBACK_UP + LOOK] if is_apart else [sys.executable, "-P", "-c", LOOK]
    )
    done = subprocess.run(
        command, env=environment | {"PYTHONPATH": child_path()}, cwd="/",
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    if done.returncode == 75:
        pytest.skip("Ray's agents did not say where they listen: the machine is busy, or another Ray has their ports")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_what_listens_for_a_private_ray_is_in_the_table_and_on_loopback_alone(found: dict[str, Any]) -> None:
    table = re.search(r"### What listens for a private Ray\n(.*?)\n\n[^|\n]", PAGE.read_text(), re.DOTALL)
    assert table is not None
    documented = dict(re.findall(r"^\| `([\w.:]+)`[^|]*\| ([\d.]+) \|", table[1], re.MULTILINE))
    # The monitor has a port of Ray's choice, which another Ray of this machine may have taken.
    assert dict(found["heard"]) | {"monitor": "127.0.0.1"} == documented
    assert {address for _, address in found["heard"]} == {"127.0.0.1"}


def test_nothing_but_counters_and_health_is_told_without_the_token(found: dict[str, Any]) -> None:
    assert found["answers"] == {"metrics": 200, "jobs": 401, "health": 200, "environments": 401}
