"""What a private Ray does differently as it starts, for want of settings in Ray.

Each change replaces a function of Ray's internals while the node starts, and is undone after. They hold for the version
of Ray that pyproject.toml names.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from ray._private import services
from ray._private.node import Node

START_SECONDS = 150.0
"""How long a node may take to be there. Ray's own 30 seconds are too few beside other work: a dozen processes start."""


@contextlib.contextmanager
def adapted_start() -> Iterator[None]:
    """Adapt how a Ray that is started in the body starts: two processes fewer, and more patience."""
    with (
        patch.object(Node, "start_api_server", _skip_api_server),
        patch.object(Node, "start_log_monitor", _skip_log_monitor),
        patch.object(services, "get_node", _patient(services.get_node)),
    ):
        yield


def _skip_api_server(self: Node, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
    """Without a dashboard this process only reports Ray's use; for that, even with RAY_USAGE_STATS_ENABLED=0, it asks
    the network which cloud it is in.
    """
    self._webui_url = ""


def _skip_log_monitor(self: Node) -> None:
    """This process reads every log file ten times a second, for drivers that want their actors' output. Ours do not."""


def _patient(get_node: Any) -> Any:
    """`services.get_node`, by which Ray asks whether the node is there, asked until START_SECONDS are over."""

    def ask(gcs_address: str, node_id: str) -> Any:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    return ask
