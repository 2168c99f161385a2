"""Limits of the kernel's oldest kind. They are hard ones: no process without CAP_SYS_RESOURCE raises them again."""

import resource


def mapped() -> int:
    """Bytes of address space that this process has: the interpreter and its libraries."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def limit(address_space: int, file_bytes: int) -> None:
    """Let this process map no more than this, make no file larger than `file_bytes`, leave no core, and open nothing.
    What is open stays open. A limit at the number of what is open would not do: who closes one of these could open
    something in its place.
    """
    _lower(resource.RLIMIT_NOFILE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    _lower(resource.RLIMIT_AS, address_space)


def start_nothing() -> None:
    """Let this process start no thread or process.

    RLIMIT_NPROC counts all of a user's processes, but only against who wants another, so 0 is for this process alone.
    Root is exempt from it.
    """
    _lower(resource.RLIMIT_NPROC, 0)


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))
