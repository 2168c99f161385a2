"""A codec worker that a hostile image has taken over: in place of an image it gets the name of a harm, and does it.

It is started by the real pool, in the real worker's place, and differs in its decoder alone. With `try USER PORT`
this is the pool, too: it has each harm done and prints what came of it as JSON. USER is `this` or `nobody`, whom both
processes then are, or `heif`: this user, with a worker that reads HEIC. PORT is one on which somebody listens.
"""

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from pipeline.codec import slot, worker_main
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError

DONE, REFUSED = "done", "refused"

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE3, _NO_ARGUMENTS = 435, (None, 0)
_PTRACE_SEIZE = 0x4206  # which does not stop who is traced
_PR_SET_DUMPABLE = 4
NOBODY = 65534


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def _write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"!")


def _read_memory_of_the_parent() -> None:
    buffer = ctypes.create_string_buffer(8)
    here = _Span(ctypes.addressof(buffer), 8)
    # The address is good there, too, or is not: a refusal comes before it matters, and is another error.
    there = _Span(ctypes.addressof(buffer), 8)
    _libc.process_vm_readv.restype = ctypes.c_ssize_t
    result = _libc.process_vm_readv(os.getppid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if result < 0 and ctypes.get_errno() != 14:  # EFAULT: it was allowed to look
        _checked(-1)


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _start_a_thread() -> None:
    try:
        threading.Thread(target=int).start()
    except RuntimeError as error:  # as Python says it
        raise PermissionError(1, str(error)) from error


def _start_threads_without_end() -> None:
    """As code of a hostile image would; what it waits for is to be ended for it."""
    _start_a_thread()  # raises where it may start none
    while True:
        try:
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        except RuntimeError:  # no memory for more
            time.sleep(1)


def _connect(port: int) -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", port))


HARMS: dict[str, Callable[[int], object]] = {
    "read the parent's environment": lambda port: _read(f"/proc/{os.getppid()}/environ"),
    "open the parent's memory": lambda port: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
    "read the parent's memory": lambda port: _read_memory_of_the_parent(),
    "trace the parent": lambda port: _checked(_libc.ptrace(_PTRACE_SEIZE, os.getppid(), None, None)),
    "signal the parent": lambda port: os.kill(os.getppid(), 0),
    "read a file": lambda port: _read("/etc/passwd"),
    "list a folder": lambda port: os.listdir("/"),
    "look whether a file is there": lambda port: os.stat("/etc/passwd"),
    "write a file": lambda port: _write(os.path.join(tempfile.gettempdir(), "harmful-file")),
    "make a folder": lambda port: os.mkdir(os.path.join(tempfile.gettempdir(), f"harmful-{os.getpid()}")),
    "change a file's mode": lambda port: os.chmod(tempfile.gettempdir(), 0o777),
    "make a socket": lambda port: socket.socket(),
    "open a connection": _connect,
    "run a program": lambda port: os.execv("/bin/true", ["true"]),
    "start a process": lambda port: _fork(),
    "start a process as the C library does": lambda port: _checked(_libc.syscall(_CLONE3, *_NO_ARGUMENTS)),
    "start a thread": lambda port: _start_a_thread(),
    "start threads without end": lambda port: _start_threads_without_end(),
    "make a file in memory": lambda port: os.memfd_create("harm"),
    "make memory that can be run": lambda port: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "raise its limits": lambda port: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2),
    "be another user": lambda port: os.setuid(4242),
}


def _reply(text: bytes = b"", *, status: int = worker_main.FAILED, length: int = 0, sides: tuple[int, int] = (0, 0),
           orientation: int = 1, said: int | None = None) -> bytes:  # fmt: skip
    size = len(text) if said is None else said
    return worker_main.REPLY.pack(status, size, length, *sides, orientation, 0, 0) + text


ANSWERS: dict[str, bytes] = {
    "is nested too deep to be read": _reply(b"[" * 60_000),
    "is a list": _reply(b"[]"),
    "is a reason without a message": _reply(b'{"reason": "odd"}'),
    "is a reason that cannot be written": _reply(b'{"reason": "\\ud800", "message": ""}'),
    "is a message that cannot be written": _reply(b'{"reason": "odd", "message": "\\ud800"}'),
    "is a reason that is none": _reply(b'{"reason": {}, "message": ""}'),
    "is an image without pixels": _reply(status=worker_main.OK),
    "is an image of more pixels than there are": _reply(
        status=worker_main.OK, length=3 << 20, sides=(1 << 10, 1 << 10)
    ),
    "is turned as none can be": _reply(status=worker_main.OK, length=3, sides=(1, 1), orientation=200),
    "goes on for gigabytes": _reply(bytes(1 << 20), said=1 << 31),
}
"""What a worker may say in place of its reply, none of which makes sense. The last one is never read to its end."""

ERROR_WITHOUT_REASON = "is an error without a reason"


_decoded = worker_main._decode


def _answer(arena: int, length: int, max_pixels: int, max_side: int | None) -> bytes:
    name = os.pread(arena, length, 0).decode()
    if name == ERROR_WITHOUT_REASON:
        return _reply(rb'{"error": "\u001b[2Jall is well"}')
    return ANSWERS[name] if name in ANSWERS else _decoded(arena, length, max_pixels, max_side)


def _decode(data: bytes, max_pixels: int, max_side: int | None) -> NoReturn:
    port, _, name = data.decode().partition(" ")
    try:
        HARMS[name](int(port))
    except (OSError, ValueError) as error:  # ValueError: of setrlimit, which calls it so
        raise ImageError(REFUSED, str(error)) from error
    raise ImageError(DONE, name)


def become_nobody() -> None:
    """Be a user without rights, whose own processes may look into this one."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))


def work() -> None:
    worker_main.decode = _decode  # type: ignore[assignment]
    worker_main._decode = _answer
    worker_main.main()


def attempt(user: str, port: str) -> None:
    module = "tests.pipeline.codec.harmful_worker"
    slot.WORKER = f"{module}_of_nobody" if user == "nobody" else module
    with CodecPool(1, timeout_seconds=60) as pool:
        if user == "heif":
            pool._slots[0].read_heif()
        held = pool.confinement()
        if user == "nobody":
            become_nobody()
        outcomes = {}
        for name in HARMS:
            try:
                pool.decode_now(f"{port} {name}".encode())
            except ImageError as error:
                outcomes[name] = [error.reason, error.message]
    print(json.dumps({"missing": held.missing, "landlock": held.landlock, "outcomes": outcomes}))


if __name__ == "__main__":
    if sys.argv[1] == "try":
        attempt(*sys.argv[2:])
    else:
        work()
