"""The processes that a test started, directly or not, as /proc tells of them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path


def environment_without_ray() -> dict[str, str]:
    """This process's variables but for those of Ray: for a child with a Ray of its own, in our folder of Rays.

    That Ray starts a process when it is needed: it would start one per CPU, each with a second of imports.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or name == "RAY_TMPDIR"}
    return kept | {"RAY_prestart_worker_first_driver": "0"}


def descendants(root: int | None = None) -> dict[int, str]:
    """All processes below `root`, this process unless told, and their command lines. Other Rays may run here too."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    found: dict[int, str] = {}
    front = {root or os.getpid()}
    while front:
        front = {pid for pid, parent in parents.items() if parent in front}
        found |= {pid: titles[pid] for pid in front if pid in titles}
    return found


def heed_hangups() -> None:
    """For a child before it starts: SIGHUP does what it does by default, also where the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts background jobs without it


def ours(mark: str) -> Iterator[int]:
    """The ids of our processes whose command line holds `mark`."""
    return (pid for pid, title in descendants().items() if mark in title)


def memory_of(pid: int, what: str = "VmRSS") -> int:
    """A line of /proc/PID/status in bytes: VmRSS is what it holds now, VmHWM the most it ever held. 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(what + ":")), 0)
