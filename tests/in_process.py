"""Jobs without Ray, for tests of all that a job does besides: an actor takes seconds to import what it needs."""

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ray

from pipeline.actors import lone_worker, shard_runner
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.actors.worker import Processor
from pipeline.evaluation import job as evaluation
from pipeline.outputs.shard import Shard
from pipeline.segmentation import job as segmentation
from tests.kept_codecs import keep_codec_workers


class InProcess:
    """Works through shards as a ShardPool does, but here, one after the other."""

    def __init__(self, spec: PoolSpec, factory: Callable[..., Processor], *args: object, kind: str = "") -> None:
        self._worker = factory(*(ray.get(arg) if isinstance(arg, ray.ObjectRef) else arg for arg in args))

    def run(
        self,
        shards: Iterator[Shard],
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
        on_note: Callable[[str], None],
    ) -> bool:
        try:
            for shard in shards:
                if should_stop():
                    return False
                on_done(self._worker.process(shard))
                on_progress(PoolProgress(1, 1, 0, 0, 0, 0))
            return not should_stop()
        finally:
            self._worker.close()  # type: ignore[attr-defined]


def segment_in_process(patch: pytest.MonkeyPatch) -> None:
    """Let jobs that segment do without Ray until `patch` is undone."""
    _without_ray(patch, segmentation)


def evaluate_in_process(patch: pytest.MonkeyPatch) -> None:
    """Let evaluations do without Ray until `patch` is undone."""
    _without_ray(patch, evaluation)


def _without_ray(patch: pytest.MonkeyPatch, job: ModuleType) -> None:
    keep_codec_workers(patch)
    for module in (lone_worker, shard_runner):  # the command line starts its process before there is a runner
        patch.setattr(module, "may_do", lambda *_: False)
    patch.setattr(shard_runner, "ShardPool", InProcess)
    patch.setattr(shard_runner, "put_model", lambda bundle, settings: bundle.to_files())
    patch.setattr(shard_runner, "ray", SimpleNamespace(put=lambda argument: argument))
    connect = SimpleNamespace(is_remote=lambda address: False, connect=lambda *_: contextlib.nullcontext())
    patch.setattr(shard_runner, "cluster", connect)
    patch.setattr(job, "cluster", connect)
