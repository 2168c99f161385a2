"""Where Ray is, and what it has: connect to a cluster, or start one inside this process.

A Ray started here is private: it is guarded by a token made for the occasion and kept in this process's environment,
has no dashboard, reports no usage, and ends with the process.
"""

import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import ray
import torch
from ray._raylet import Config  # type: ignore[attr-defined]  # a compiled module without stubs

from pipeline.errors import InputError

MAX_CPUS_PER_ACTOR = 8
"""Beyond this many threads one image's convolutions gain little; more actors gain more."""


@dataclass(frozen=True)
class NodeResources:
    """What Ray may hand out on one node."""

    cpus: float
    gpus: float


@contextlib.contextmanager
def connect(address: str | None = None) -> Iterator[None]:
    """Be connected to Ray: the one in use already, the one at `address` (or RAY_ADDRESS), or a new private one.

    Only what was started or joined here is left again at the end. Raises InputError when no Ray answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray warns on every start that it will stop hiding GPUs from actors that asked for none; that is what we want.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    if not address and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Ray reads its authentication mode when it is imported; this is how ray.init() makes itself read it again.
        Config.initialize("")
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
        else:
            ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({_first_line(error)}); check the address and the token"
        ) from error
    if threading.current_thread() is threading.main_thread():
        # ray.init() installs a handler that exits on the spot; who called us may have a better one.
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


def is_remote(address: str | None) -> bool:
    """Whether a job with this `ray_address` runs on a Ray that is there already, on machines maybe unlike this one."""
    if address or os.environ.get("RAY_ADDRESS"):
        return True
    return bool(ray.is_initialized())


def nodes() -> list[NodeResources]:
    """The nodes an actor may be placed on. Asks Ray when connected, else describes the node that would be started."""
    if ray.is_initialized():
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [NodeResources(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]
    return [NodeResources(float(len(os.sched_getaffinity(0))), float(torch.cuda.device_count()))]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
