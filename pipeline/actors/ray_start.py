"""Starting or joining a Ray, with what a private one does differently, for want of settings in Ray.

Each change replaces a function of Ray's internals while the node starts, and is undone after. They hold for the version
of Ray that pyproject.toml names.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray._private import ray_constants, services
from ray._private.node import Node
from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray._private.state import GlobalState
from ray.job_config import JobConfig

from pipeline.actors.private_folder import absolute_files
from pipeline.actors.ray_words import plain

START_SECONDS = 150.0
"""How long a node may take to be there. Ray's own 30 seconds are too few beside other work: a dozen processes start."""

ATTEMPTS = 6
"""How often a node is started whose raylet ended, or which was not there in time."""

ATTEMPTS_OTHERWISE = 2
"""How often after any other failure that may have been the machine's: Ray has many words for having timed out."""

log = logging.getLogger(__name__)


class NodeNotStarted(Exception):
    """A node of a private Ray ended while it started, or was not there in time."""


class OwnPathOnly(JobConfig):
    """The job of a driver whose workers import nothing from the driver's current folder.

    Ray puts that folder first on its workers' path, here and on a cluster: a `pipeline.py` among images of a
    stranger's would run there, with the user's credentials. The folder of the script that is run stays,
    as it does in Python itself.
    """

    def _serialize(self) -> str:
        paths = self._py_driver_sys_path
        if paths and paths[-1] == os.path.abspath(os.path.curdir):
            paths.pop()
        serialized: str = super()._serialize()
        return serialized


def start(address: str, working_folder: Path | None = None, loopback: bool = False, **options: Any) -> None:
    """`ray.init` with these options. A node that ends while it starts is started again, and so is one that timed out.

    `working_folder` is where the processes of a new node run; with `loopback` they listen to 127.0.0.1 alone.

    A raylet gives its agents 15 seconds to start, and ends when a busy machine takes longer. Raises NodeNotStarted when
    it has ended ATTEMPTS times or is not there after START_SECONDS, and what ray.init raises.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with adapted_start(working_folder, loopback) as nodes:
            try:
                ray.init(
                    address, job_config=OwnPathOnly(), logging_level=logging.WARNING, log_to_driver=False, **options
                )
                return
            except BaseException as error:  # Ctrl-C, too: Ray itself ends only a node that is whole
                for node in nodes:
                    node.kill_all_processes(check_alive=False, allow_graceful=False)
                if attempt >= _attempts(error):
                    raise
                log.info("ray start attempt=%d error=%s", attempt, plain(error))
                ray.shutdown()


@contextlib.contextmanager
def adapted_start(working_folder: Path | None = None, loopback: bool = False) -> Iterator[list[Node]]:
    """The nodes that are started in the body, which have two processes fewer than Ray's and more time.

    Their processes run in `working_folder`, if it is given, and listen to 127.0.0.1 alone with `loopback`.
    """
    nodes: list[Node] = []
    start_raylet: Any = Node.start_ray_processes
    start_process: Any = services.start_ray_process
    get_node: Any = services.get_node

    def remember(self: Node) -> None:
        nodes.append(self)
        start_raylet(self)

    def ask(gcs_address: str, node_id: str) -> Any:
        """By this Ray asks whether the node is there."""
        deadline = time.monotonic() + START_SECONDS
        state = GlobalState()
        state._initialize_global_state(services._get_gcs_client_options(gcs_address))
        while True:
            # Asked for a node that is not there, `get_node` waits for half a minute; its raylet may have ended by then.
            if any(found["NodeID"] == node_id for found in state.node_table()):
                with contextlib.suppress(RuntimeError):  # it has ended since
                    return get_node(gcs_address, node_id)
            if any(_has_ended(node) for node in nodes):
                raise NodeNotStarted("Ray's node ended while it started")
            if time.monotonic() > deadline:
                raise NodeNotStarted(f"Ray's node was not there after {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def start_there(*arguments: Any, **named: Any) -> Any:
        if working_folder is not None:
            named["env_updates"] = {**absolute_files(), **(named.get("env_updates") or {})}
            named["cwd"] = str(working_folder)
        # A closed terminal tells all of its processes. Ray's must live on until the job has stopped; what is blocked
        # here is blocked in them. Ray does the same with Ctrl-C.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            return start_process(*arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    with (
        # Below `uv run`, Ray would send the current folder to its workers as their code.
        patch.object(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
        patch.object(services, "start_ray_process", start_there),
        # Without clusters, as on a laptop, Ray gives the node the address 127.0.0.1 and listens to no other.
        patch.object(ray_constants, "ENABLE_RAY_CLUSTER", ray_constants.ENABLE_RAY_CLUSTER and not loopback),
        patch.object(Node, "start_api_server", _skip_api_server),
        patch.object(Node, "start_log_monitor", _skip_log_monitor),
        patch.object(Node, "start_ray_processes", remember),
        patch.object(services, "get_node", ask),
    ):
        yield nodes


def _attempts(error: BaseException) -> int:
    """How often a start is tried in all that ended in this error. Not again: what another try would not mend."""
    if isinstance(error, NodeNotStarted):
        return ATTEMPTS
    hopeless = not isinstance(error, Exception) or isinstance(error, ConnectionError | ValueError | TypeError)
    return 1 if hopeless else ATTEMPTS_OTHERWISE


def _has_ended(node: Node) -> bool:
    raylets = node.all_processes.get(PROCESS_TYPE_RAYLET, [])
    return any(raylet.process.poll() is not None for raylet in raylets)


def _skip_api_server(self: Node, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
    """Without a dashboard this process only reports Ray's use; for that, even with RAY_USAGE_STATS_ENABLED=0, it asks
    the network which cloud it is in.
    """
    self._webui_url = ""


def _skip_log_monitor(self: Node) -> None:
    """This process reads all logs ten times per second, for drivers that print their actors' output. Ours don't."""
