"""How training workers find each other: over the network, or, on a machine of their own, through a private file.

PyTorch's default store listens on every address of the first worker's machine and asks nobody for a token. Workers on a
private Ray are all on one machine, so they can use a file that only its owner can reach, and loopback for gradients.
"""

import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend

_LOOPBACK_NAMES = ("lo", "lo0")


def loopback_environment() -> dict[str, str]:
    """The variables that keep gloo and NCCL on loopback; empty where this system's interface has another name."""
    name = next((name for _, name in socket.if_nameindex() if name in _LOOPBACK_NAMES), None)
    return {} if name is None else {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name}


@dataclass
class OneMachineConfig(TorchConfig):
    """Ray Train's configuration for workers that share a machine: they meet in a file below `folder`, mode 0700."""

    folder: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _OneMachine


class _OneMachine(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Connect the workers. Each start has a file of its own: what a broken group left would mislead the next."""
        assert isinstance(backend_config, OneMachineConfig)
        meeting = Path(tempfile.mkdtemp(prefix="group-", dir=backend_config.folder)) / "store"
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=meeting.as_uri(),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )
