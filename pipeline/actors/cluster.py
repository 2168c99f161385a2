"""Where Ray is, and what it has: connect to a cluster, or start one inside this process.

A Ray started here is private: it is guarded by a token made for the occasion and kept in this process's environment,
has no dashboard, reports no usage, and ends with the process.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._private.state import state
from ray._raylet import Config  # type: ignore[attr-defined]  # a compiled module without stubs
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from pipeline.actors.control_watch import watched
from pipeline.actors.private_folder import private_folder, session_folder, working_folder
from pipeline.actors.ray_start import start
from pipeline.actors.ray_words import plain
from pipeline.container import usable_cpus
from pipeline.errors import InputError, PipelineError
from pipeline.numbers import counted
from pipeline.storage.uri import without_user

RESOURCE_UNITS = 10_000
"""Ray counts CPUs and GPUs in so many parts of one."""

MAX_CPUS_PER_ACTOR = 8
"""Beyond this many threads one image's convolutions gain little; more actors gain more."""

CONNECT_SECONDS = 10.0

PRIVATE = "local"
"""The `ray_address` that asks for a Ray of the process's own."""


@dataclass(frozen=True)
class NodeResources:
    """What Ray may hand out on one node."""

    cpus: float
    gpus: float


@contextlib.contextmanager
def connect(address: str | None = None, on_note: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Be connected to Ray: the one in use already, the one at `address` (or RAY_ADDRESS), or a new private one, which
    `address` PRIVATE asks for.

    `on_note` is told which cluster was joined where RAY_ADDRESS chose it, which is easily forgotten; and, from another
    thread, that Ray's control service is lost.

    Only what was started or joined here is left again at the end. Raises InputError when no Ray answers at `address`,
    and PipelineError when Ray itself fails in the body.
    """
    try:
        if ray.is_initialized():
            yield
            return
        by_variable = None if address else os.environ.get("RAY_ADDRESS")
        address = address or by_variable
        with _joined(address) if address and address != PRIVATE else _started():
            if by_variable and by_variable != PRIVATE:
                on_note(f"joined the Ray cluster at {_shown_address(by_variable)}, because RAY_ADDRESS says so")
            with watched(on_note):
                yield
    except RayError as error:
        raise PipelineError(f"Ray failed: {plain(error)}; the same command resumes") from error


@contextlib.contextmanager
def _joined(address: str) -> Iterator[None]:
    """Connected to the cluster at `address`, with the user's own token settings."""
    host, _, port = address.rpartition(":")
    unanswered = f"no Ray cluster answers at {without_user(address)}"
    if host and "//" not in address:
        try:
            # Ray's own client would go on trying for minutes.
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError, ValueError) as error:
            raise InputError(f"{unanswered} ({plain(error)}); check the address") from error
    try:
        with _ray(address):
            yield
    except _ConnectFailed as error:
        raise InputError(f"{unanswered} ({plain(error)}); check the address and the token") from error


@contextlib.contextmanager
def _started() -> Iterator[None]:
    """A private Ray with what this machine has, guarded by a token."""
    if "RAY_AUTH_MODE" not in os.environ:
        # Both stay for the life of the process: Ray keeps the first token it has read, also for the next Ray here.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray reads its authentication mode when it is imported; this is how ray.init() makes itself read it again.
        Config.initialize("")
    here = nodes()[0]
    try:
        with private_ray(num_cpus=int(here.cpus), num_gpus=int(here.gpus)):
            yield
    except _ConnectFailed as error:
        load, cpus = os.getloadavg()[0], int(here.cpus)
        busy = f" (its load is {load:.0f} on {counted(cpus, 'CPU')}: try again when less runs)" if load > cpus else ""
        raise PipelineError(
            f"Ray did not start on this machine: {plain(error)}{busy}; its logs are under "
            f"{session_folder(private_folder())}/session_latest/logs, and the same command resumes"
        ) from error


@contextlib.contextmanager
def private_ray(num_cpus: int, num_gpus: int, *, others_join: bool = False) -> Iterator[None]:
    """A new Ray on this machine that says it has so many CPUs and GPUs, ended with the body.

    Its processes listen to 127.0.0.1 alone unless `others_join`: a driver in another process takes the network's
    address for 127.0.0.1, whatever it is told, and Ray listens either to 127.0.0.1 alone or to every address.

    "local" keeps it from joining a cluster that happens to run here.
    """
    private = private_folder()
    with _ray(
        "local",
        working_folder=working_folder(private),
        loopback=not others_join,
        _temp_dir=str(session_folder(private)),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        include_dashboard=False,
    ):
        yield


class _ConnectFailed(Exception):
    """ray.init() failed."""


@contextlib.contextmanager
def _ray(address: str, **options: Any) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns on every start that it will stop hiding GPUs from actors that asked for none; that is what we want.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        start(address, **options)
    except Exception as error:  # Ray raises bare Exceptions, too
        raise _ConnectFailed(plain(error)) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            # ray.init() installs a handler that exits on the spot; who called us may have a better one.
            signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


def _shown_address(address: str) -> str:
    """An address for a person: "auto" with what it stood for."""
    actual = str(ray.get_runtime_context().gcs_address)
    return address if address == actual else f"{without_user(address)} ({actual})"


def is_remote(address: str | None) -> bool:
    """Whether a job with this `ray_address` runs on a Ray that is there already, on machines maybe unlike this one."""
    return (address or os.environ.get("RAY_ADDRESS") or PRIVATE) != PRIVATE or ray.is_initialized()


def nodes() -> list[NodeResources]:
    """The nodes an actor may be placed on. Asks Ray when connected, else describes the node that would be started."""
    if ray.is_initialized():
        going = draining_nodes()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in going]
        return [NodeResources(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]
    import torch  # takes a second of every process that imports it, and is needed by few that import this module

    return [NodeResources(float(usable_cpus()), float(torch.cuda.device_count()))]


def count_fitting(found: list[NodeResources], cpus: float, gpus: float) -> int:
    """How many actors of `cpus` and `gpus` each these nodes could hold, were they idle."""
    return sum(actors_on(node.cpus, node.gpus, cpus, gpus) for node in found)


def actors_on(cpus: float, gpus: float, cpus_each: float, gpus_each: float) -> int:
    """How many actors that take `cpus_each` and `gpus_each` a machine of `cpus` and `gpus` holds.

    Counted in ten-thousandths, as Ray does: in floating point 1 // 0.2 is 4.
    """
    fits = [
        round(have * RESOURCE_UNITS) // round(each * RESOURCE_UNITS)
        for have, each in ((cpus, cpus_each), (gpus, gpus_each))
        if round(each * RESOURCE_UNITS) > 0
    ]
    return min(fits, default=0)


def draining_nodes() -> set[str]:
    """Ids of the nodes that are about to be taken away: preempted, or scaled down."""
    # Ray tells this nowhere in its public interface; its own libraries ask here, too.
    return set(state.get_draining_nodes())


def is_alive(node_id: str) -> bool:
    """Whether Ray takes this node for alive, as it does for some seconds after a node's end."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def is_fixed() -> bool:
    """Whether it is known that no autoscaler adds nodes to this cluster.

    Every head without one runs Ray's read-only autoscaler, which calls each node a type of its own, after the node's
    id. Where nothing is reported, or something else, there may be one.
    """
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}")
    report = status.get("autoscaler_report") or {}
    types: dict[str, str] = report.get("node_type_mapping") or {}
    return bool(types) and all(name == f"node_{node_id}" for node_id, name in types.items())
