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

from tests.processes import descendants

TOKEN = secrets.token_hex(32)
ROOT = Path(__file__).parents[3]
START_SECONDS = 120


@pytest.fixture(scope="module")
def standing_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of its dashboard. This process's environment has its token."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    gcs, dashboard = free_port(), free_port()
    logs = (tmp_path_factory.mktemp("ray") / "start.log").open("wb")
    ray = str(Path(sys.executable).parent / "ray")
    head = ["--head", f"--port={gcs}", "--num-cpus=2", "--include-dashboard=true", f"--dashboard-port={dashboard}"]
    nodes = [head, *([f"--address=127.0.0.1:{gcs}", "--num-cpus=1"],) * 2]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for node in nodes:
            command = [ray, "start", "--block", "--node-ip-address=127.0.0.1", "--object-store-memory=100000000"]
            # Nodes have ports of their own: three share this host, and so may other Rays.
            command += [f"--dashboard-agent-listen-port={free_port()}", *node]
            started.append(subprocess.Popen(command, env=environment, stdout=logs, stderr=logs, start_new_session=True))
            if node is head:
                wait_for(f"http://127.0.0.1:{dashboard}/api/version", started[0], Path(logs.name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN", TOKEN)
            yield f"http://127.0.0.1:{dashboard}"
    finally:
        # All at once: a cluster that is left to end by itself takes a minute over it.
        for process in started:
            for pid in (process.pid, *descendants(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        logs.close()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the dashboard answers, be it with a refusal for want of a token."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
