"""The surroundings of a flow run from a terminal: the environment of Prefect and Ray, and Prefect's server.

Both read the environment once, when imported; so this module imports neither until it must.
"""

import os
import signal
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from pipeline.actors.private_folder import absolute_files, private_folder, working_folder
from pipeline.jobs.places import absolute_places

J = TypeVar("J", bound=BaseModel)


def prepare_prefect() -> None:
    """Defaults for a flow run from a terminal; what the user has set stays."""
    # Prefect's own server needs 10 to 16 s to start on a small machine.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def leave_folder(job: J) -> J:
    """Make an empty folder the current one, for good, and return `job` with its relative places made absolute.

    Prefect takes settings from files of the current folder (.env, prefect.toml, pyproject.toml), among them whom to
    send a run to and what to execute, and the server that it starts imports from there. Call it before Prefect is
    imported.
    """
    job = absolute_places(job)
    enter_empty_folder()
    return job


def enter_empty_folder() -> None:
    """`leave_folder` for commands without places."""
    os.environ |= absolute_files()
    os.chdir(working_folder(private_folder()))


def isolate(prefect_home: Path) -> None:
    """Cut this process off from the user's own Prefect and Ray.

    Their settings go, so both start anew for this process, and Prefect's files stay in `prefect_home`. Prefect
    speaks up only when something is wrong.
    """
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "RAY_"))]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = str(prefect_home.resolve())
    os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
    os.environ["PREFECT_SERVER_LOGGING_LEVEL"] = "ERROR"
    prepare_prefect()


def start_prefect() -> None:
    """Have the Prefect server that flows here use; one inside this process is started, and ends with it.

    It is started deaf to Ctrl-C, which reaches every process of a terminal: else it would be gone when the interrupted
    flow wants to tell it so, and the flow would go on trying for a minute.
    """
    from prefect.client.orchestration import get_client

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            client.hello()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
