"""The processes that a test started, directly or not, as /proc tells of them."""

import os
from collections.abc import Iterator
from pathlib import Path


def is_ours(pid: int) -> bool:
    """Whether a process descends from this one: other Rays may run on the machine."""
    while pid > 1 and pid != os.getpid():
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == os.getpid()


def descendants(mark: str) -> Iterator[int]:
    """The ids of our processes whose command line holds `mark`."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in command and is_ours(pid):
            yield pid


def memory_of(pid: int, what: str = "VmRSS") -> int:
    """A line of /proc/PID/status in bytes: VmRSS is what it holds now, VmHWM the most it ever held. 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(what + ":")), 0)
