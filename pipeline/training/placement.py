"""Where a training runs: what the job leaves open is resolved from what the connected Ray has."""

from typing import Literal

import ray
import torch
from ray.exceptions import GetTimeoutError

from fcn_core.inference.settings import has_bfloat16
from pipeline.actors import cluster
from pipeline.actors.cluster import NodeResources
from pipeline.errors import InputError, PipelineError
from pipeline.jobs.train import TrainJob
from pipeline.training.group_spec import GroupSpec
from pipeline.training.meeting import loopback_environment


def check_fits(job: TrainJob, here: NodeResources) -> None:
    """Raise InputError when the fewest workers that a job asks for do not fit this machine, all there will be."""
    least, cpus = job.workers[0], job.cpus_per_worker or 1
    gpus = least if job.use_gpu else 0
    if job.placement == "STRICT_SPREAD" and least > 1:
        raise InputError(
            f"placement STRICT_SPREAD wants {least} machines and this is one; give --ray-address or another --placement"
        )
    if least * cpus > here.cpus or gpus > here.gpus:
        each = f"{cpus} CPU and 1 GPU" if job.use_gpu else f"{cpus} CPU"
        raise InputError(
            f"{least} worker(s) of {each} do not fit this machine ({here.cpus:g} CPU, {here.gpus:g} GPU); give fewer "
            "--workers, --cpus-per-worker or the --ray-address of a cluster"
        )


def resolve_group(job: TrainJob, private: bool) -> tuple[GroupSpec, list[str]]:
    """The group of workers on the connected Ray, and what a person should know of it.

    `private`: that Ray is this process's own, so its node is this machine. Raises InputError for a backend or a
    precision that has not the devices it needs.
    """
    nodes = cluster.nodes()
    least, most = job.workers
    use_gpu = job.use_gpu
    if use_gpu is None:
        use_gpu = sum(int(node.gpus) for node in nodes) >= least
    has_cuda = use_gpu and (torch.cuda.is_available() if private else _has_cuda(nodes, job.placement_timeout))
    notes = []
    if use_gpu and not has_cuda:
        if job.use_gpu:
            notes.append("each worker holds a GPU of Ray's, but PyTorch sees no CUDA device there: training on the CPU")
        use_gpu = bool(job.use_gpu)
    if job.backend == "nccl" and not has_cuda:
        raise InputError("backend nccl needs a CUDA device for each worker, and there are none; give --backend gloo")
    if job.train.precision == "float16" and not has_cuda:
        raise InputError(
            "train.precision float16 needs a CUDA device for each worker, and there are none; give bfloat16 or float32"
        )
    if job.train.precision == "bfloat16" and private and not has_cuda and not has_bfloat16("cpu"):
        notes.append(
            "this CPU does not compute in bfloat16, and emulating it takes several times as long as float32: "
            "train.precision auto chooses what the hardware has"
        )
    backend: Literal["gloo", "nccl"] = "nccl" if has_cuda and job.backend != "gloo" else "gloo"
    environment = (loopback_environment() if private else {}) | job.nccl
    if job.network_interface:
        environment |= {"GLOO_SOCKET_IFNAME": job.network_interface, "NCCL_SOCKET_IFNAME": job.network_interface}
    group = GroupSpec(
        workers=(least, most),
        cpus=job.cpus_per_worker or _fair_share(nodes, most, use_gpu),
        use_gpu=use_gpu,
        device="cuda" if has_cuda else "cpu",
        resources=dict(job.resources_per_worker),
        placement=job.placement,
        backend=backend,
        backend_timeout=job.backend_timeout,
        environment=environment,
        max_failures=job.max_failures,
        resize_interval=job.resize_interval,
        one_machine=private,
    )
    notes.append(f"{group} on {group.device}, gradients over {group.backend}")
    return group, notes


def missing_resources(group: GroupSpec) -> str:
    """What the workers want and what Ray has, for whoever waits."""
    has = ", ".join(f"{amount:g} {name}" for name, amount in sorted(ray.cluster_resources().items()) if ":" not in name)
    return f"{group} were asked for ({group.placement}), Ray has {has or 'nothing'}"


def _fair_share(nodes: list[NodeResources], workers: int, use_gpu: bool) -> int:
    """CPUs per worker: an equal part of all that can be used, no more than any such node has."""
    usable = [node for node in nodes if node.cpus and (node.gpus or not use_gpu)]
    if not usable:
        return 1
    smallest = min(node.cpus // max(1.0, node.gpus) if use_gpu else node.cpus for node in usable)
    return max(1, int(min(smallest, sum(node.cpus for node in usable) // workers)))


def _has_cuda(nodes: list[NodeResources], timeout: float) -> bool:
    """Whether PyTorch can use the GPUs that Ray hands out. Asked on a node that has one; where none is yet, assumed."""
    if not any(node.gpus >= 1 for node in nodes):
        return True
    probe = ray.remote(torch.cuda.is_available).options(num_cpus=0, num_gpus=1)
    try:
        return bool(ray.get(probe.remote(), timeout=timeout))
    except GetTimeoutError as error:
        raise PipelineError(f"no GPU came free within {timeout:.0f} s; try again, or give --no-use-gpu") from error
