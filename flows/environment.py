"""What Prefect and Ray must be told through the environment, before they are imported: they read it once."""

import os
from pathlib import Path


def prepare_prefect() -> None:
    """Defaults for a flow run from a terminal; what the user has set stays."""
    # Prefect's own server needs 10 to 16 s to start on a small machine.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def isolate(prefect_home: Path) -> None:
    """Cut this process off from the user's own Prefect and Ray.

    Their settings go, so both start anew for this process, and Prefect's files stay in `prefect_home`. Prefect speaks up
    only when something is wrong.
    """
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "RAY_"))]:
        del os.environ[name]
    os.environ["PREFECT_HOME"] = str(prefect_home.resolve())
    os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
    os.environ["PREFECT_SERVER_LOGGING_LEVEL"] = "ERROR"
    prepare_prefect()
