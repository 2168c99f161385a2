"""Starting or joining a Ray, with what a private one does differently, for want of settings in Ray.

Each change replaces a function of Ray's internals while the node starts, and is undone after. They hold for the version
of Ray that pyproject.toml names.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import ray
from ray._private import services
from ray._private.node import Node
from ray._private.ray_constants import PROCESS_TYPE_RAYLET

START_SECONDS = 150.0
"""How long a node may take to be there. Ray's own 30 seconds are too few beside other work: a dozen processes start."""

ATTEMPTS = 4

log = logging.getLogger(__name__)


class NodeNotStarted(Exception):
    """A node of a private Ray ended while it started, or was not there in time."""


def start(address: str, **options: Any) -> None:
    """`ray.init` with these options. A node that ends while it starts is started again.

    A raylet gives its agents 15 seconds to start, and ends when a busy machine takes longer. Raises NodeNotStarted when
    it has ended ATTEMPTS times or is not there after START_SECONDS, and what ray.init raises.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with adapted_start() as nodes:
            try:
                ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **options)
                return
            except NodeNotStarted as error:
                for node in nodes:
                    node.kill_all_processes(check_alive=False, allow_graceful=False)
                if attempt == ATTEMPTS:
                    raise
                log.info("ray start attempt=%d error=%s", attempt, error)


@contextlib.contextmanager
def adapted_start() -> Iterator[list[Node]]:
    """The nodes that are started in the body, which have two processes fewer than Ray's and more time."""
    nodes: list[Node] = []
    start_raylet: Any = Node.start_ray_processes
    get_node: Any = services.get_node

    def remember(self: Node) -> None:
        nodes.append(self)
        start_raylet(self)

    def ask(gcs_address: str, node_id: str) -> Any:
        """By this Ray asks whether the node is there."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return get_node(gcs_address, node_id)
            except RuntimeError as error:
                if any(_has_ended(node) for node in nodes):
                    raise NodeNotStarted("Ray's node ended while it started") from error
                if time.monotonic() > deadline:
                    raise NodeNotStarted(f"Ray's node was not there after {START_SECONDS:.0f} s") from error
                time.sleep(0.1)

    with (
        patch.object(Node, "start_api_server", _skip_api_server),
        patch.object(Node, "start_log_monitor", _skip_log_monitor),
        patch.object(Node, "start_ray_processes", remember),
        patch.object(services, "get_node", ask),
    ):
        yield nodes


def _has_ended(node: Node) -> bool:
    raylets = node.all_processes.get(PROCESS_TYPE_RAYLET, [])
    return any(raylet.process.poll() is not None for raylet in raylets)


def _skip_api_server(self: Node, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
    """Without a dashboard this process only reports Ray's use; for that, even with RAY_USAGE_STATS_ENABLED=0, it asks
    the network which cloud it is in.
    """
    self._webui_url = ""


def _skip_log_monitor(self: Node) -> None:
    """This process reads every log file ten times a second, for drivers that want their actors' output. Ours do not."""
