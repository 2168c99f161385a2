"""What may be wrong with this machine, its Ray or its storage, looked at before a job has to find out.

The one thing to know: a check never raises. Whatever goes wrong in one is its finding, said in a sentence with what to
do, and the other checks go on; only a finding of state "wrong" makes the machine unfit.
"""

import os
import platform
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pipeline import container
from pipeline.doctor.codecs import check_codecs
from pipeline.doctor.finding import Finding
from pipeline.errors import InputError, ObjectExists, StorageError
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, StorageOptions, Store
from pipeline.storage.uri import without_user

__all__ = ["DoctorPlaces", "Finding", "examine"]

DISTRIBUTION = "fcn-pipeline"
LEAST_DISK = 1 << 30
COMFORTABLE_DISK = 10 << 30
LEAST_MEMORY = 2 << 30
LEAST_SHARED_MEMORY = 256 << 20
SKEW_NOTED = timedelta(seconds=30)
SKEW_REFUSED = timedelta(minutes=15)
"""S3 refuses requests whose clock is further off than this."""

RAY_SECONDS = 120.0
_FAST_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


@dataclass(frozen=True)
class DoctorPlaces:
    """What to look at besides the machine: `both` to write to as well, `sources` to read only.

    registry: None is the one that FCN_REGISTRY names, if it does. ray_address: None is RAY_ADDRESS, else a private Ray.
    """

    both: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    registry: str | None = None
    ray: bool = True
    ray_address: str | None = None


def examine(places: DoctorPlaces) -> Iterator[Finding]:
    """Every check, one after the other, each finding as soon as it is known."""
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("device", _device),
        ("cpu", _cpu),
        ("memory", _memory),
        ("disk", _disk),
        ("codecs", check_codecs),
    ]
    if places.ray:
        checks.append(("ray", lambda: _ray(places.ray_address)))
    checks += [(f"storage {uri}", lambda uri=uri: _storage(uri, write=False)) for uri in places.sources]  # type: ignore[misc]
    checks += [(f"storage {uri}", lambda uri=uri: _storage(uri, write=True)) for uri in places.both]  # type: ignore[misc]
    checks.append(("registry", lambda: _registry(places.registry)))
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(name, "wrong", f"the check failed: {_sentence(error)}", "mend this, or report it")


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        yield Finding("python", "wrong", found, "run it on Linux: images are decoded in processes that need it")
    else:
        yield Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    """Installed versions against what the distribution asks for."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        remedy = "install it: make setup, or pip install -e ."
        yield Finding("packages", "wrong", f"{DISTRIBUTION} is not installed in this environment", remedy)
        return
    problems = []
    plain = [requirement for requirement in asked if requirement.marker is None or requirement.marker.evaluate()]
    for requirement in plain:
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            problems.append(f"{requirement.name} is {there}, not {requirement.specifier}")
    if problems:
        yield Finding("packages", "wrong", "; ".join(problems), "install again: make setup, or pip install -e .")
        return
    shown = ", ".join(f"{name} {version(name)}" for name in (DISTRIBUTION, "torch", "ray", "pyarrow", "obstore"))
    yield Finding("packages", "ok", f"{shown}; all {len(plain)} requirements are met")


def _torch() -> Iterator[Finding]:
    remedy = "install PyTorch again, the wheel for this machine"
    try:
        import torch

        with torch.inference_mode():
            # The sum of ones under a window of ones: a wrong wheel crashes or miscounts here.
            total = torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)).sum().item()
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("torch", "wrong", f"PyTorch does not work here: {_sentence(error)}", remedy)
        return
    if total != 4 * 36 * 27:
        yield Finding("torch", "wrong", f"PyTorch {torch.__version__} computes a convolution wrongly", remedy)
    else:
        yield Finding("torch", "ok", f"PyTorch {torch.__version__} computes")


def _device() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if Path("/proc/driver/nvidia/version").exists():
            remedy = "install the PyTorch wheel for CUDA, or a driver as new as it wants; CPUs are used until then"
            yield Finding("device", "note", "there is an NVIDIA driver, but PyTorch sees no CUDA device", remedy)
        else:
            yield Finding("device", "ok", "cpu; no CUDA device here")
        return
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            free, total = torch.cuda.mem_get_info(index)
            torch.ones(8, 8, device=f"cuda:{index}").matmul(torch.ones(8, 8, device=f"cuda:{index}")).sum().item()
        except RuntimeError as error:
            remedy = "see what nvidia-smi says, or use --device cpu"
            yield Finding("device", "wrong", f"cuda:{index} ({name}) does not compute: {_sentence(error)}", remedy)
            continue
        found = f"cuda:{index} is {name}, {_size(free)} of {_size(total)} free"
        if free < LEAST_MEMORY:
            yield Finding("device", "note", found, "end what else runs on it (nvidia-smi shows it)")
        else:
            yield Finding("device", "ok", found)


def _cpu() -> Iterator[Finding]:
    from fcn_core.inference import openvino_runtime
    from fcn_core.inference.settings import resolve_settings

    there = os.cpu_count() or 1
    usable = container.usable_cpus()
    flags = _cpu_flags()
    fast = [flag for flag in _FAST_CPU_FLAGS if flag in flags]
    settings = resolve_settings(device="cpu")
    known = " ".join(fast) or "no vector instructions known here"
    found = f"{usable} of {there} CPUs usable, {known}; {settings.precision} by {settings.engine}"
    if flags and not fast:
        yield Finding("cpu", "note", found, "expect it to be slow, or use another kind of machine")
    elif not openvino_runtime.is_installed():
        yield Finding("cpu", "note", found, f"models run several times as fast with {openvino_runtime.INSTALL}")
    else:
        yield Finding("cpu", "ok", found)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}


def _memory() -> Iterator[Finding]:
    available = _available_memory()
    limit = container.memory_limit()
    found = f"{_size(available)} available" + (f" of the {_size(limit)} of this container" if limit else "")
    if available < LEAST_MEMORY:
        yield Finding("memory", "wrong", found, f"free some, or use a larger machine: {_size(LEAST_MEMORY)} at least")
    else:
        yield Finding("memory", "ok", found)
    try:
        shared = shutil.disk_usage("/dev/shm").free
    except OSError:
        return
    if shared < LEAST_SHARED_MEMORY:
        remedy = "give the container more: docker run --shm-size 1g; Ray uses slow files in /tmp until then"
        yield Finding("memory", "note", f"{_size(shared)} free in /dev/shm", remedy)


def _available_memory() -> int:
    """Bytes that a new process could take: the machine's, or what the container's limit leaves."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    left = container.memory_left()
    return available if left is None else min(available, left)


def _disk() -> Iterator[Finding]:
    seen = set()
    for what, place in (("temporary files", tempfile.gettempdir()), ("this folder", os.getcwd())):
        device = os.stat(place).st_dev
        if device in seen:
            continue
        seen.add(device)
        yield _disk_finding(what, place)


def _disk_finding(what: str, place: str) -> Finding:
    free = shutil.disk_usage(place).free
    found = f"{_size(free)} free for {what} ({place})"
    if free < LEAST_DISK:
        return Finding("disk", "wrong", found, "free some, or set TMPDIR to a larger disk")
    if free < COMFORTABLE_DISK:
        return Finding("disk", "note", found, "Ray and caches may want more; watch it")
    return Finding("disk", "ok", found)


def _ray(address: str | None) -> Iterator[Finding]:
    import ray

    from pipeline.actors import cluster
    from pipeline.errors import PipelineError

    address = address or os.environ.get("RAY_ADDRESS")
    started = time.monotonic()
    try:
        with cluster.connect(address):
            there = ray.get(ray.remote(num_cpus=1)(_worker_versions).remote(), timeout=RAY_SECONDS)
            nodes = cluster.nodes()
    except ray.exceptions.GetTimeoutError:
        remedy = "see with `ray status` whether its CPUs are taken, or whether its nodes have gone"
        yield Finding("ray", "wrong", f"no worker answered in {RAY_SECONDS:.0f} seconds", remedy)
        return
    except PipelineError as error:
        remedy = "check the address" if address else f"see the logs under {_ray_folder()}/session_latest/logs"
        yield Finding("ray", "wrong", _sentence(error), remedy)
        return
    where = f"the cluster at {without_user(address)}" if address else "a private Ray starts"
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    found = (
        f"{where}: {len(nodes)} node(s), {cpus:g} CPUs, {gpus:g} GPUs, a worker answered after "
        f"{time.monotonic() - started:.0f} s"
    )
    different = [
        f"{name} is {theirs} there and {ours} here"
        for (name, theirs), ours in zip(there.items(), _worker_versions().values(), strict=True)
        if theirs != ours
    ]
    if different:
        yield Finding("ray", "wrong", f"{found}; {', '.join(different)}", "give both the same image or environment")
    else:
        yield Finding("ray", "ok", found)


def _ray_folder() -> Path:
    from pipeline.actors.private_folder import private_folder, session_folder

    return session_folder(private_folder())


def _worker_versions() -> dict[str, str]:
    """What a driver and its workers must agree on."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in (DISTRIBUTION, "ray", "torch", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _storage(uri: str, write: bool) -> Iterator[Finding]:
    """List; and where it is an output: write, create only, read back, delete, and what the storage's clock says."""
    check = f"storage {uri}"
    try:
        store = open_store(uri, StorageOptions(retry_seconds=15.0))
    except InputError as error:
        yield Finding(check, "wrong", _sentence(error), "correct the URI")
        return
    try:
        if write and store.location.scheme == "file" and not os.path.isdir("/" + "/".join(store.location.folders)):
            store.check_writable()
            yield Finding(check, "ok", "is not there yet, and can be made")
            return
        started = time.monotonic()
        store.check_readable()
        listed = f"can be listed ({(time.monotonic() - started) * 1000:.0f} ms)"
        if not write:
            yield Finding(check, "ok", listed)
            return
        store.check_writable()
        info, clock = _write_and_delete(store)
    except _Misbehaved as error:
        yield Finding(check, "wrong", str(error), "use a service that keeps what it is given, create-only included")
        return
    except StorageError as error:
        yield Finding(check, "wrong", _sentence(error), _access_remedy(store))
        return
    skew = abs(info.last_modified - clock)
    found = f"{listed}, written, created only once, read back, deleted; its clock is {skew.total_seconds():.0f} s off"
    if skew > SKEW_REFUSED:
        yield Finding(
            check, "wrong", found, "set this machine's clock (timedatectl set-ntp true): requests are refused"
        )
    elif skew > SKEW_NOTED:
        yield Finding(check, "note", found, "set this machine's clock (timedatectl set-ntp true)")
    else:
        yield Finding(check, "ok", found)


class _Misbehaved(Exception):
    """The storage did something else than it was asked to."""


def _write_and_delete(store: Store) -> tuple[ObjectInfo, datetime]:
    """What a listing says of an object that was written just now, and this machine's time of it. Leaves nothing."""
    key = f".fcn-check-{uuid.uuid4().hex}"
    before = datetime.now(UTC)
    try:
        store.create(key, b"checked")
        after = datetime.now(UTC)
        try:
            store.create(key, b"replaced")
        except ObjectExists:
            pass
        else:
            raise _Misbehaved(f"{store.uri} lets a create-only write replace an object")
        if store.get(key) != b"checked":
            raise _Misbehaved(f"{store.uri} answers with other bytes than were written")
        info = store.head(key)
        if key not in (listed.key for listed in store.list(key)):
            raise _Misbehaved(f"{store.uri} does not list an object that was written")
    finally:
        store.delete(key)
    return info, before + (after - before) / 2


def _access_remedy(store: Store) -> str:
    if store.location.scheme == "file":
        return "correct the path, or its rights"
    if store.location.scheme == "s3":
        return "check the bucket's name, AWS_PROFILE, AWS_ENDPOINT_URL and the rights (docs/registry.md lists rights)"
    return "check the name, the credentials and the rights"


def _registry(uri: str | None) -> Iterator[Finding]:
    from pipeline.models.registry import ENVIRONMENT, open_registry

    if not uri and not os.environ.get(ENVIRONMENT):
        if uri is not None:
            yield Finding("registry", "wrong", "the registry's place is empty", f"give it, or set {ENVIRONMENT}")
        else:
            yield Finding("registry", "ok", f"none is named ({ENVIRONMENT} is not set)")
        return
    try:
        registry = open_registry(uri)
        registry.check_readable()
        names = registry.names()
        champions = [name for name in names if registry.champion(name) is not None]
    except (InputError, StorageError) as error:
        yield Finding("registry", "wrong", _sentence(error), f"correct --registry or {ENVIRONMENT}")
        return
    yield Finding("registry", "ok", f"{registry.uri}: {len(names)} names, {len(champions)} with a champion")


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
