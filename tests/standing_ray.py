"""A standing Ray cluster of one node, guarded by a token, as `ray start` makes it."""

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

from tests.plugins.isolation import RAY_REPORTS_NOTHING, child_path
from tests.processes import descendants, environment_without_ray

TOKEN = secrets.token_hex(32)
ROOT = Path(__file__).parents[1]
START_SECONDS = 300


@contextlib.contextmanager
def standing_ray(folder: Path, cpus: int = 4) -> Iterator[str]:
    """The URL of its dashboard. This process's environment gets its token, and the node has the rest of that.

    `cpus` is what its jobs may ask for; this machine may have fewer.
    """
    kept = environment_without_ray()
    environment = kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        **RAY_REPORTS_NOTHING,
        # `ray start` sends a last report, that it will send none.
        "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
        # 15 is Ray's own: on a machine where other tests run, an actor would wait minutes for its share.
        "RAY_worker_niceness": "0",
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "PYTHONPATH": child_path(),
        "OMP_NUM_THREADS": "1",
    }
    with contextlib.ExitStack() as stack:
        dashboard = _start_head(stack, folder / "head.log", cpus, environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN", TOKEN)
            yield f"http://127.0.0.1:{dashboard}"


def _start_head(stack: contextlib.ExitStack, log: Path, cpus: int, environment: dict[str, str]) -> int:
    """Start the node, killed when `stack` is left, and wait until it is up. Returns the dashboard's port.

    Up to three times: Ray is told ports that are free and takes them a second later, when somebody else may have them.
    """
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--head", f"--num-cpus={cpus}"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", "--include-dashboard=true"]
    for _ in range(3):
        gcs, dashboard, agent, clients = (free_port() for _ in range(4))
        ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        ports.append(f"--ray-client-server-port={clients}")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*command, *ports],
                # Else a job's driver, which is told "auto", joins whichever Ray of this machine was started last.
                env=environment | {"RAY_ADDRESS": f"127.0.0.1:{gcs}"},
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        # All at once, and at once: a cluster that is left to end by itself takes a minute over it.
        stack.callback(end, process)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None:
            if "Ray runtime started" in log.read_text():
                return dashboard
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
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
