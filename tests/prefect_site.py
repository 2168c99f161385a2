"""Prefect as an operator sets it up: a server on a database of its own, and a worker for the process pool `fcn`."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.plugins.isolation import child_path
from tests.processes import descendants
from tests.standing_ray import ROOT, end, free_port, wait_for

QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
}
"""What Prefect looks for every ten seconds or every minute, it looks for every second here."""

POOL = "fcn"


@dataclass(frozen=True)
class PrefectSite:
    """A server that answers at `api`, and a worker's process. `environment` is that of the worker."""

    api: str
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
def prefect_site(folder: Path) -> Iterator[PrefectSite]:
    """Server and worker, with this process's environment; Prefect's clients in this process use them too."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        # A worker's flows find the package installed, not by the folder that the worker happens to be started in.
        "PYTHONPATH": child_path(),
        **QUICK,
    }
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            _started(
                ["server", "start", "--host", "127.0.0.1", "--port", str(port)], environment, folder / "server.log"
            )
        )
        wait_for(f"{api}/health", server, folder / "server.log")
        log = folder / "worker.log"
        arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", "test"]
        worker = stack.enter_context(_started(arguments, environment, log))
        # The worker makes the pool.
        wait_for(f"{api}/work_pools/{POOL}", worker, log)
        stack.enter_context(temporary_settings({PREFECT_API_URL: api}))
        yield PrefectSite(api, environment, worker, log)


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
