"""A standing Ray cluster of a head and two workers, guarded by a token, as `ray start` makes it."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.isolation import child_path
from tests.processes import descendants

TOKEN = secrets.token_hex(32)
ROOT = Path(__file__).parents[1]
START_SECONDS = 120


@contextlib.contextmanager
def standing_ray(folder: Path) -> Iterator[str]:
    """The URL of its dashboard. This process's environment gets its token, and the nodes have the rest of that."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        # 15 is Ray's own: on a machine where other tests run, an actor would wait minutes for its share.
        "RAY_worker_niceness": "0",
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": child_path(),
        "OMP_NUM_THREADS": "1",
    }
    gcs, dashboard = free_port(), free_port()
    # Else a job's driver, which is told "auto", joins whichever Ray of this machine was started last.
    environment["RAY_ADDRESS"] = f"127.0.0.1:{gcs}"
    head = ["--head", f"--port={gcs}", "--num-cpus=2", "--include-dashboard=true", f"--dashboard-port={dashboard}"]
    worker = [f"--address=127.0.0.1:{gcs}", "--num-cpus=1"]
    with contextlib.ExitStack() as nodes:
        for name, options in (("head", head), ("worker-1", worker), ("worker-2", worker)):
            _start_node(nodes, folder / f"{name}.log", options, environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN", TOKEN)
            yield f"http://127.0.0.1:{dashboard}"


def _start_node(nodes: contextlib.ExitStack, log: Path, options: list[str], environment: dict[str, str]) -> None:
    """Start a node, killed when `nodes` is left, and wait until it is up.

    One after the other, and up to three times: Ray looks for a free port and takes it a second later, when another node
    of this machine may have it.
    """
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *options]
    for _ in range(3):
        with log.open("wb") as sink:
            agent = f"--dashboard-agent-listen-port={free_port()}"
            process = subprocess.Popen(
                [*command, agent], env=environment, stdout=sink, stderr=sink, start_new_session=True
            )
        # All at once, and at once: a cluster that is left to end by itself takes a minute over it.
        nodes.callback(end, process)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None:
            if "Ray runtime started" in log.read_text():
                return
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    for pid in (process.pid, *descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server answers, be it with a refusal for want of a token."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return
        except OSError:
            pass
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
