"""A container's limits are found in control groups of both versions, nested or not."""

from pathlib import Path

import pytest

from pipeline import container

MB = 1 << 20


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A /proc and /sys as a kernel shows them."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_GROUPS = "4:memory:/pod/box\n1:cpu,cpuacct:/pod/box\n0::/\n"


def version_2(root: Path) -> Path:
    """A container as it sees itself: what is mounted is its own group."""
    return machine(root, "0::/\n", V2_MOUNT, {
        "sys/fs/cgroup/memory.max": str(900 * MB), "sys/fs/cgroup/memory.current": str(700 * MB),
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {100 * MB}\n", "sys/fs/cgroup/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/memory.events": "low 0\noom 4\noom_kill 3\n",
    })  # fmt: skip


def version_2_nested(root: Path) -> Path:
    """A service within a slice, of which the slice has the tighter limits."""
    return machine(root, "0::/jobs.slice/night.service\n", V2_MOUNT, {
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "sys/fs/cgroup/jobs.slice/memory.max": str(900 * MB), "sys/fs/cgroup/jobs.slice/memory.current": str(600 * MB),
        "sys/fs/cgroup/jobs.slice/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/jobs.slice/night.service/memory.max": "max\n",
        "sys/fs/cgroup/jobs.slice/night.service/memory.current": "5\n",
        "sys/fs/cgroup/jobs.slice/night.service/cpu.max": "max 100000\n",
        "sys/fs/cgroup/jobs.slice/night.service/memory.events": "oom_kill 3\n",
    })  # fmt: skip


def version_1(root: Path) -> Path:
    """A hybrid machine, with the limits on the pod above the container."""
    return machine(root, V1_GROUPS, V1_MOUNTS, {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": str(900 * MB),
        "sys/fs/cgroup/memory/pod/memory.usage_in_bytes": str(600 * MB),
        "sys/fs/cgroup/memory/pod/box/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/pod/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/pod/box/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip


def version_1_of_a_container(root: Path) -> Path:
    """Docker without a namespace: the path is the host's, and what is mounted is the container's part of it."""
    mounts = V1_MOUNTS.replace(" / /sys", " /docker/1234 /sys")
    return machine(root, "4:memory:/docker/1234\n1:cpu,cpuacct:/docker/1234\n", mounts, {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(900 * MB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(700 * MB),
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MB}\n",
        "sys/fs/cgroup/memory/memory.oom_control": "oom_kill 3\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip


@pytest.mark.parametrize("kind", [version_2, version_2_nested, version_1, version_1_of_a_container])
def test_the_limits_of_a_container_are_read_in_control_groups_of_both_versions_nested_too(
    tmp_path: Path, kind: object
) -> None:
    root = kind(tmp_path)  # type: ignore[operator]
    assert container.memory_limit(root) == 900 * MB
    assert container.memory_left(root) == 300 * MB
    assert container.cpu_limit(root) == (1.5 if kind is version_2_nested else 1.0)
    assert container.usable_cpus(root) == 1
    assert container.oom_kills(root) == 3


def test_a_machine_without_limits_has_none(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/user.slice\n", V2_MOUNT, {
        "sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
        "proc/vmstat": "pgfault 5\noom_kill 2\n",
    })  # fmt: skip
    assert (container.memory_limit(root), container.memory_left(root), container.cpu_limit(root)) == (None, None, None)
    assert container.oom_kills(root) == 2, "the machine's counter, where the group has none"
    empty = tmp_path / "empty"
    assert (container.memory_limit(empty), container.cpu_limit(empty), container.oom_kills(empty)) == (None, None, None)
