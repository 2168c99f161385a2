"""The leader of a group of training workers: an actor that runs Ray Train, and hears from the workers.

Ray Train places the workers, connects them, watches them, and starts them anew when one dies or the cluster has
changed. It keeps nothing: checkpoints are ours (see `pipeline.training.worker`), so its storage is a folder that is
thrown away.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError
from ray.train.torch import TorchConfig, get_device
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from fcn_core.errors import FcnError
from pipeline.actors.ray_words import plain
from pipeline.errors import InputError, StorageError, StorageUnavailable
from pipeline.training.group_spec import GroupResult, GroupSpec, GroupStatus
from pipeline.training.meeting import OneMachineConfig
from pipeline.training.progress import TrainProgress

REPORT_TIMEOUT_SECONDS = 30.0

ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    # How long to wait for as many workers as there was room for before a node was lost; then for as many as there is.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Workers whose partner died cannot say goodbye to each other.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}


class GroupLeader:
    """The actor. Its methods are called from several threads at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: TrainProgress | None = None
        self._waiting = True
        self._failures = 0
        self._reason = ""
        self._stopping = False

    def run(self, me: Any, group: GroupSpec, name: str, work: list[Any]) -> GroupResult:
        """Train one stage; returns when that has ended in any way.

        `me` is this actor's handle, `work` a reference to the WorkerSpec.

        Ray Train starts workers anew that die between their first step and their last. A death before or after, while
        it connects or ends them, is an error of its own controller to it, which ends the training. It is a failure like
        any other, and all is begun again, from the newest checkpoint.
        """
        while True:
            failures = self.status().failures
            left = group.max_failures if group.max_failures < 0 else max(0, group.max_failures - failures)
            try:
                return self._train(me, replace(group, max_failures=left), name, work)
            except ControllerError as error:
                death = _death(error.controller_failure)
                if death is None:
                    return _explain(error)
                # Its own failures reach `broken` by a message, which may be on its way still.
                self.broken(f"a worker was lost while its group started or ended ({death})")
                if 0 <= group.max_failures < self.status().failures:
                    return GroupResult(None, failed=self.status().reason)
            except TrainingFailedError as error:
                return _explain(error)

    def _train(self, me: Any, group: GroupSpec, name: str, work: list[Any]) -> GroupResult:
        folder = tempfile.mkdtemp(prefix="fcn-ray-train-")
        least, most = group.workers
        worker: Callable[[], Any] = _worker_function(group.device, work, me)
        trainer = _Trainer(
            worker,
            torch_config=_torch_config(group, folder),
            scaling_config=ScalingConfig(
                num_workers=most if least == most else (least, most),
                use_gpu=group.use_gpu,
                resources_per_worker=group.bundle(),
                placement_strategy=group.placement,
                elastic_resize_monitor_interval_s=group.resize_interval,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=folder,
                failure_config=FailureConfig(max_failures=group.max_failures),
                callbacks=[_OnFailure(me)],
                worker_runtime_env={"env_vars": group.environment},
            ),
        )
        try:
            result: Any = trainer.fit()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return GroupResult(result.return_value)

    def report_progress(self, progress: TrainProgress) -> bool:
        """The first worker's report; returns whether to go on."""
        with self._lock:
            self._progress = progress
            self._waiting = False
            return not self._stopping

    def broken(self, reason: str) -> None:
        """The workers have ended before their work was done."""
        with self._lock:
            self._failures += 1
            self._reason = reason
            self._waiting = True

    def status(self) -> GroupStatus:
        with self._lock:
            return GroupStatus(self._progress, self._waiting, self._failures, self._reason)

    def stop(self) -> None:
        with self._lock:
            self._stopping = True


def _torch_config(group: GroupSpec, folder: str) -> TorchConfig:
    if group.one_machine:
        return OneMachineConfig(backend=group.backend, timeout_s=int(group.backend_timeout), folder=folder)
    return TorchConfig(backend=group.backend, timeout_s=int(group.backend_timeout))


class _Trainer(TorchTrainer):
    """Without what hands out Ray's own data sets: we have none, and it would start a process for each worker group."""

    def _create_default_callbacks(self) -> list[Any]:
        return [found for found in super()._create_default_callbacks() if not isinstance(found, DatasetsCallback)]


class _Leader:
    """The leader as the first worker sees it. Without one the driver is gone, and there is nobody to train for."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def report_progress(self, progress: TrainProgress) -> bool:
        try:
            return bool(ray.get(self._handle.report_progress.remote(progress), timeout=REPORT_TIMEOUT_SECONDS))
        except GetTimeoutError:
            return True
        except RayError:
            return False


def _worker_function(kind: str, work: list[Any], leader: Any) -> Callable[[], Any]:
    """What Ray Train runs in every worker."""

    def run_worker() -> Any:
        from pipeline.training.worker import train_stage  # here, and not in the leader's and the controller's processes

        spec = ray.get(work[0])
        device = str(get_device()) if kind == "cuda" else "cpu"
        return train_stage(replace(spec, config=spec.config.model_copy(update={"device": device})), _Leader(leader))

    return run_worker


_ALWAYS_THE_SAME = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    NameError,
    ImportError,
    NotImplementedError,
)
"""What a program raises because of what it was given. Deaths, full memory, broken connections and storage that does not
answer are others, and may get better."""


class _Refused(Exception):
    """What no other try would mend."""


class _OnFailure(UserCallback):
    """Ray Train calls it where it watches the workers: tells the leader, and ends what cannot get better."""

    def __init__(self, leader: Any) -> None:
        self._leader = leader

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank in sorted(worker_exceptions):
            error = worker_exceptions[rank]
            if isinstance(error, (FcnError, InputError, StorageError)) and not isinstance(error, StorageUnavailable):
                raise _Refused(str(error))
            if isinstance(error, _ALWAYS_THE_SAME) and not isinstance(error, StorageUnavailable):
                raise _Refused(
                    f"worker {rank} failed with {type(error).__name__} ({plain(error)}), which another try would "
                    "not mend"
                )
        self._leader.broken.remote(_reason(worker_exceptions))


def _death(error: BaseException) -> str | None:
    """What an error of the controller says of the loss of a worker, or of its connection; None where it is another."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RayError):
            return plain(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def _explain(error: TrainingFailedError) -> GroupResult:
    if isinstance(error, ControllerError):
        cause = error.controller_failure
        if isinstance(cause, _Refused):
            return GroupResult(None, refused=str(cause))
        return GroupResult(None, failed=plain(cause))
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    return GroupResult(None, failed=_reason(failures) if failures else plain(error))


def _reason(failures: dict[int, Exception]) -> str:
    """Of several workers' errors the one that the others are echoes of: a death, else the first."""
    deaths = {rank: getattr(error, "health_check_failure", None) for rank, error in failures.items()}
    for rank, death in deaths.items():
        if isinstance(death, OutOfMemoryError):
            return f"worker {rank} was ended because its node ran out of memory"
        if isinstance(death, RayError):
            return f"worker {rank} died ({plain(death)})"
    rank = min(failures)
    return f"worker {rank} failed ({plain(failures[rank])})"
