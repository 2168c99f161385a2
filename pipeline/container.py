"""The limits of the container that this process is in, from Linux's control groups of version 1 and 2.

Groups may be nested: what holds is the tightest limit of a group and all above it that can be seen from here. `root`
is where /proc and /sys are, for tests.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = 1 << 60
"""Version 1 writes the largest number there is where version 2 writes "max"."""

ROOT = Path("/")


@dataclass(frozen=True)
class _Group:
    """This process's group of one controller: its folder, and those above it up to where they are mounted."""

    version: int
    folders: tuple[Path, ...]


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that this process and its neighbours in the container may take; None where nothing limits them."""
    return min((limit for limit, _ in _memory_limits(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that are left below the tightest limit; caches that the kernel can drop at once count as left."""
    return min((max(0, limit - _used(folder)) for limit, folder in _memory_limits(root)), default=None)


def cpu_limit(root: Path = ROOT) -> float | None:
    """CPUs that the container may keep busy; None where nothing limits them."""
    return min(_cpu_limits(root), default=None)


def usable_cpus(root: Path = ROOT) -> int:
    """CPUs that this process may keep busy, at least 1: its affinity, or the container's quota where that is less."""
    cpus, limit = len(os.sched_getaffinity(0)), cpu_limit(root)
    return cpus if limit is None else max(1, min(cpus, math.floor(limit)))


def oom_kills(root: Path = ROOT) -> int | None:
    """How many processes of this container the kernel has ended for want of memory, since it is there.

    Of the whole machine where the container has no counter; None where neither can be read.
    """
    group = _group("memory", root)
    if group is not None:
        name = "memory.events" if group.version == 2 else "memory.oom_control"
        counted = _values(group.folders[0] / name).get("oom_kill")
        if counted is not None:
            return counted
    return _values(root / "proc/vmstat").get("oom_kill")


def _memory_limits(root: Path) -> Iterator[tuple[int, Path]]:
    group = _group("memory", root)
    if group is not None:
        for folder in group.folders:
            limit = _number(folder / ("memory.max" if group.version == 2 else "memory.limit_in_bytes"))
            if limit is not None and limit < _UNLIMITED:
                yield limit, folder


def _used(folder: Path) -> int:
    first = _number(folder / "memory.current")
    used = _number(folder / "memory.usage_in_bytes") if first is None else first
    kept = _values(folder / "memory.stat")
    return max(0, (used or 0) - kept.get("total_inactive_file", kept.get("inactive_file", 0)))


def _cpu_limits(root: Path) -> Iterator[float]:
    group = _group("cpu", root)
    for folder in group.folders if group is not None else ():
        if group is not None and group.version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _group(controller: str, root: Path) -> _Group | None:
    """This process's group of a controller. Of version 1 where that has the controller, as on hybrid machines."""
    inside = {
        name: path
        for number, names, path in (line.split(":", 2) for line in _lines(root / "proc/self/cgroup", ":"))
        for name in (names.split(",") if number != "0" or names else ("",))
    }
    for version, name in ((1, controller), (2, "")):
        if name not in inside:
            continue
        for mounted, mount_point in _mounts(version, controller, root):
            folders = tuple(_folders(inside[name], mounted, root / mount_point.lstrip("/")))
            if version == 1 or any((folder / f"{controller}.max").exists() for folder in folders):
                return _Group(version, folders)
    return None


def _mounts(version: int, controller: str, root: Path) -> Iterator[tuple[str, str]]:
    """Which part of a hierarchy is mounted where."""
    for line in _lines(root / "proc/self/mountinfo", " - "):
        place, _, kind = line.partition(" - ")
        fields, (what, _, options) = place.split(), (*kind.split(), "", "", "")[:3]
        if len(fields) >= 5 and (
            (version == 2 and what == "cgroup2") or (what == "cgroup" and controller in options.split(","))
        ):
            yield fields[3], fields[4]


def _folders(path: str, mounted: str, mount_point: Path) -> Iterator[Path]:
    """The folder of a group and those above it. A group that is not below what is mounted is what is mounted."""
    below = path.removeprefix(mounted.rstrip("/")).strip("/") if path.startswith(mounted.rstrip("/")) else ""
    parts = [] if ".." in below.split("/") else [part for part in below.split("/") if part]
    while parts and not mount_point.joinpath(*parts).is_dir():
        parts.pop()
    for count in range(len(parts), -1, -1):
        yield mount_point.joinpath(*parts[:count])


def _lines(file: Path, mark: str) -> list[str]:
    return [line for line in _text(file).splitlines() if mark in line]


def _values(file: Path) -> dict[str, int]:
    """A file of lines "name number"."""
    pairs = (line.split() for line in _text(file).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
