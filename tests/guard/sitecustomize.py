"""Keeps a Python process within this machine: no connection to other hosts, no file but in the folders it was given.

Nor does it wait for a disk. Python imports a module of this name as it starts. The tests put this folder on PYTHONPATH,
so the guard is in every Python process that they start, Ray's workers and Prefect's server included. An audit hook sees
what Python code does; it does not see what a library in C++ or Rust does by itself.

FCN_TEST_GUARD names the folder where violations are noted: one line per violation, in a file per process. The call
itself fails with PermissionError. FCN_TEST_GUARD_WRITABLE lists the folders that may be written, separated as in PATH,
and FCN_TEST_GUARD_HOSTS the hosts that may be reached besides loopback, separated by commas.
"""

import os
import socket
import sys

_LOCAL = ("127.", "::1", "localhost", "::ffff:127.")
# Nothing is sent to the first two: a server binds to them, and a datagram socket "connected" to an address outside only
# learns which of this machine's addresses it would use (so does Ray).
_NOWHERE = ("", "0.0.0.0", "::")
# The head of every Ray asks for its cloud's metadata, whatever its settings are. It is refused, but not noted.
_RAYS_OWN = ("ray/dashboard/dashboard.py", ("169.254.169.254", "metadata.google.internal"))
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING = {"os.mkdir": (0, 2), "os.rename": (1, 3), "os.remove": (0, 1), "os.link": (1, 3), "os.symlink": (1, 2)}
"""Audit events that make or remove a name: which argument is the path, and which the folder that it is relative to."""


def is_local(host: object) -> bool:
    """Whether a host's name or address is this machine's loopback."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    return text in _NOWHERE or text.startswith(_LOCAL)


def _note(folder: str, what: str) -> None:
    with open(os.path.join(folder, f"{os.getpid()}.txt"), "a") as notes:
        notes.write(f"{what} by {' '.join(sys.argv)[:300]!r}\n")


def install(folder: str, writable: list[str], hosts: frozenset[str] = frozenset()) -> None:
    """Start guarding this process, for as long as it lives. `hosts` are allowed besides loopback."""
    roots = tuple(os.path.realpath(root).rstrip("/") + "/" for root in (*writable, folder))

    def refuse(what: str) -> None:
        if not (sys.argv[0].endswith(_RAYS_OWN[0]) and any(host in what for host in _RAYS_OWN[1])):
            _note(folder, what)
        raise PermissionError(f"tests/guard: {what}")

    def check_write(path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a file descriptor
        text = os.fsdecode(path)
        if text.startswith(("/dev/", "/proc/")) or ".pyc" in text or text == ":memory:":
            return
        real = os.path.realpath(text)
        if not (real + "/").startswith(roots):
            refuse(f"writes {real}")

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITE:
                check_write(path)
        elif event in _CHANGING:
            path, folder = (arguments[index] for index in _CHANGING[event])
            if folder == -1:  # else the path is relative to an open folder, which was reached by a path of its own
                check_write(path)
        elif event in ("socket.connect", "socket.sendto"):
            sock, address = arguments[:2]
            if not isinstance(sock, socket.socket) or sock.family not in (socket.AF_INET, socket.AF_INET6):
                return
            if event == "socket.connect" and sock.type & socket.SOCK_DGRAM:
                return
            if isinstance(address, tuple) and not (is_local(address[0]) or str(address[0]) in hosts):
                refuse(f"connects to {address[0]}:{address[1]}")
        elif event == "socket.getaddrinfo":
            host = arguments[0]
            if host is not None and not (is_local(host) or str(host) in hosts or host == socket.gethostname()):
                refuse(f"looks up {host!r}")

    sys.addaudithook(watch)


def spare_the_disk() -> None:
    """Let files be good without a word of the disk's: nothing that tests write has to outlive a power cut.

    A disk takes milliseconds for each of its words, beside other work many, and a run on a local folder asks for
    hundreds. posix.fsync stays as it is.
    """

    def fsync(descriptor: int) -> None:
        os.fstat(descriptor)  # a file that is not open is still an error

    os.fsync = os.fdatasync = fsync


if "FCN_TEST_GUARD" in os.environ:
    install(
        os.environ["FCN_TEST_GUARD"],
        os.environ["FCN_TEST_GUARD_WRITABLE"].split(os.pathsep),
        frozenset(filter(None, os.environ.get("FCN_TEST_GUARD_HOSTS", "").split(","))),
    )
    spare_the_disk()
