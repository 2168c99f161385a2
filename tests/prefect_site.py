"""Prefect as an operator sets it up: a server on a database of its own, and a worker for the process pool `fcn`."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from tests.plugins.isolation import child_path
from tests.processes import descendants
from tests.standing_ray import ROOT, end, free_port, wait_for

QUICK = {
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
}
"""What Prefect looks for every few seconds or every half minute, it looks for every second here."""

POOL = "fcn"


@dataclass(frozen=True)
class PrefectServer:
    """A server that answers at `api`. `settings` are environment variables for whoever uses it, `home` its folder."""

    api: str
    settings: Mapping[str, str]
    home: Path


@dataclass(frozen=True)
class PrefectSite:
    """A worker's process on a server. `environment` is that of the worker."""

    environment: Mapping[str, str]
    worker: subprocess.Popen[bytes]
    log: Path

    def prefect(self, *arguments: str, **environment: str) -> str:
        """Run a command of Prefect's in the checkout, as an operator would, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def processes_of(self, run: UUID) -> list[int]:
        """The processes in which the worker runs a flow run."""
        mark = f"PREFECT__FLOW_RUN_ID={run}".encode()
        found = []
        for pid in descendants(self.worker.pid):
            with contextlib.suppress(OSError):  # it has just ended
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(pid)
        return found


@contextlib.contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectServer]:
    """A server; Prefect's clients in this process use it too."""
    home = folder / "prefect"
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **QUICK,
    }
    with contextlib.ExitStack() as stack:
        api = _start_server(stack, _environment(settings), folder / "server.log")
        stack.enter_context(temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}))
        yield PrefectServer(api, settings | {"PREFECT_API_URL": api}, home)


@contextlib.contextmanager
def prefect_worker(server: PrefectServer, folder: Path) -> Iterator[PrefectSite]:
    """A worker with this process's environment."""
    environment = _environment(server.settings)
    log = folder / "worker.log"
    arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", "test"]
    with _started(arguments, environment, log) as worker:
        # The worker makes the pool.
        wait_for(f"{server.api}/work_pools/{POOL}", worker, log)
        yield PrefectSite(environment, worker, log)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's, with those settings of Prefect's and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        # A worker's flows find the package installed, not by the folder that the worker happens to be started in.
        "PYTHONPATH": child_path(),
        **settings,
    }


def _start_server(stack: contextlib.ExitStack, environment: Mapping[str, str], log: Path) -> str:
    """The URL of its API, once it answers.

    Up to three times: it is told a port that is free and takes it a second later, when somebody else may have it.
    """
    for _ in range(3):
        port = free_port()
        arguments = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
        server = stack.enter_context(_started(arguments, environment, log))
        api = f"http://127.0.0.1:{port}/api"
        try:
            wait_for(f"{api}/health", server, log)
        except AssertionError:
            if "already in use" not in log.read_text():
                raise
        else:
            return api
    raise AssertionError(log.read_text())


@contextlib.contextmanager
def _started(arguments: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *arguments],
            env=dict(environment),
            cwd=log.parent,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process)
