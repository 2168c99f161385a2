"""What a driver and the leader of its training workers exchange: the group's spec, its status, and its result."""

from dataclasses import dataclass
from typing import Literal

from pipeline.training.progress import TrainProgress, WorkerOutcome


@dataclass(frozen=True)
class GroupSpec:
    """How many workers, on what, and how they talk to each other. `workers`: least and most. `one_machine`: all of them
    run where their driver does, and nobody else need reach them."""

    workers: tuple[int, int]
    cpus: int
    use_gpu: bool
    device: Literal["cpu", "cuda"]
    resources: dict[str, float]
    placement: str
    backend: Literal["gloo", "nccl"]
    backend_timeout: float
    environment: dict[str, str]
    max_failures: int
    resize_interval: float
    one_machine: bool = False

    def bundle(self) -> dict[str, float]:
        """What each worker holds, by Ray's names."""
        return {"CPU": float(self.cpus)} | ({"GPU": 1.0} if self.use_gpu else {}) | self.resources

    def __str__(self) -> str:
        """ "2 worker(s) of 1 CPU", "1 to 4 worker(s) of 8 CPU and 1 GPU"."""
        least, most = self.workers
        number = f"{most}" if least == most else f"{least} to {most}"
        return f"{number} worker(s) of {' and '.join(f'{amount:g} {name}' for name, amount in self.bundle().items())}"


@dataclass(frozen=True)
class GroupStatus:
    """How a group is doing. `waiting`: no worker has reported since the group began, or broke; `failures` counts
    the times it broke, and `reason` is of the last."""

    progress: TrainProgress | None
    waiting: bool
    failures: int
    reason: str


@dataclass(frozen=True)
class GroupResult:
    """How it ended: with an outcome, refused for what no other try would mend, or failed too often."""

    outcome: WorkerOutcome | None
    refused: str | None = None
    failed: str | None = None
