"""Says that Ray's control service is lost, before Ray ends this process for it without a word.

A driver whose control service (the GCS, on the head) does not come back within a minute is ended inside Ray's own
code, where no exception comes through. A thread asks for the service meanwhile.
"""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET

LOOK_SECONDS = 2.0
CONNECT_SECONDS = 5.0
MISSES = 3
"""So many connections in a row that fail are no accident. A head that restarts may need longer, and is waited for."""

RAY_GIVES_UP_SECONDS = 60
"""When Ray ends a driver (gcs_rpc_server_reconnect_timeout_s)."""

_PROCESSES = {
    PROCESS_TYPE_GCS_SERVER: "Ray's control service (gcs_server)",
    PROCESS_TYPE_RAYLET: "Ray's node process (raylet)",
}


@contextmanager
def watched(on_note: Callable[[str], None]) -> Iterator[None]:
    """Watch the control service of the connected Ray during the body. `on_note` is called from another thread."""
    over = threading.Event()
    node: Any = ray_worker._global_node
    address = str(ray.get_runtime_context().gcs_address)
    thread = threading.Thread(target=_watch, args=(address, node, on_note, over), name="control-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, node: Any, on_note: Callable[[str], None], over: threading.Event) -> None:
    missed = 0
    told = False
    while not over.wait(LOOK_SECONDS):
        ended = _ended(node)
        if ended is not None:
            if not over.wait(0.2):  # at the end of the body Ray ends them itself
                _tell(on_note, f"{ended} on this machine has ended: killed, or out of memory or disk; {_RESUMES}")
            return
        missed = 0 if _answers(address) else missed + 1
        if missed >= MISSES and not told:
            told = True
            _tell(
                on_note,
                f"Ray's control service at {address} does not answer: the head may be lost or restarting. Ray ends "
                f"this process where it is away for {RAY_GIVES_UP_SECONDS} s; {_RESUMES}",
            )
        elif told and not missed:
            told = False
            _tell(on_note, f"Ray's control service at {address} answers again")


_RESUMES = "nothing that is committed is lost, and the same command resumes"


def _ended(node: Any) -> str | None:
    """Which process of a Ray that this one started is there no more."""
    for kind, name in _PROCESSES.items():
        for started in (node.all_processes if node is not None else {}).get(kind, []):
            if started.process.poll() is not None:
                return name
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _tell(on_note: Callable[[str], None], text: str) -> None:
    try:
        on_note(text)
    except Exception:  # an observer that may be called from its own thread only
        print(text, file=sys.stderr)
