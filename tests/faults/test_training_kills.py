"""SIGKILL at a random step to a training: taken up again, it ends as the undisturbed one, bit for bit.

Each seed is one blow, at a step and a moment within it that are drawn from the seed. The workers are the program's own,
in bare processes: a group of Ray's takes so long to start that few blows would fit. tests/pipeline/training and
tests/e2e kill workers and drivers on Ray.
"""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest
import torch.distributed as dist

from fcn_core.training import checkpoint
from fcn_core.training.config import LoopPlan
from pipeline.training import worker
from pipeline.training.plan import check_inputs, new_run
from pipeline.training.progress import TrainProgress
from pipeline.training.store import TrainStore
from pipeline.training.worker import TrainWorkerSpec, train_stage
from tests.trainings import job, kept, write_scenes

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

STEPS = 12
LONGEST_PAUSE = 0.15
"""Seconds between the step and the blow, at most: it may fall into a step, a validation or a checkpoint."""


class _Told:
    """Whom the first worker reports to: notes its step in shared memory."""

    def __init__(self, step: "Synchronized[int]") -> None:
        self._step = step

    def report_progress(self, progress: TrainProgress) -> bool:
        self._step.value = progress.step
        return True


def _work(spec: TrainWorkerSpec, rank: int, world: int, meeting: str, step: "Synchronized[int]") -> None:
    worker.TELL_SECONDS = 0.0
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    train_stage(spec, _Told(step))
    if world > 1:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Training:
    """A small training, begun but not trained yet."""

    spec: TrainWorkerSpec
    store: TrainStore
    workers: int
    folder: Path

    @classmethod
    def begin(cls, place: Path, name: str, backbone: str, workers: int) -> "Training":
        this = job(place, name=name, backbone=backbone, workers=workers, dropout=0.5, train={"steps": STEPS})
        inputs = check_inputs(this)
        run, start = new_run(this, inputs)
        store = kept(this)
        store.save_start(start)
        spec = TrainWorkerSpec(
            name=name,
            run_uri=store.store.uri,
            stage="fcn8s",
            stage_number=1,
            stages=1,
            train_set=inputs.train_set,
            val_set=inputs.val_set,
            config=run.plan.stages[0].config,
            plan=LoopPlan(save_every=2, log_every=1),
            threads=1,
            record_examples=False,
        )
        return cls(spec, store, workers, place)

    def train(self, blow: tuple[int, float, int] | None = None) -> bool:
        """Train to the end, or to a blow: at a step, so many seconds after it, to a worker. Whether it fell."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        step: Synchronized[int] = context.Value("i", -1)
        meeting = self.folder / f"meeting-{self.spec.name}-{time.monotonic_ns()}"
        group = [
            context.Process(target=_work, args=(self.spec, rank, self.workers, str(meeting), step))
            for rank in range(self.workers)
        ]
        for process in group:
            process.start()
        fell = False
        try:
            if blow is not None:
                at, pause, victim = blow
                while step.value < at and all(process.is_alive() for process in group):
                    time.sleep(0.005)
                group[victim].join(pause)
                fell = group[victim].is_alive()
                if fell:
                    os.kill(group[victim].pid or 0, signal.SIGKILL)
            else:
                for process in group:
                    process.join()
        finally:
            # Those that are left wait for the dead one; Ray ends them as well.
            for process in group if blow is not None else ():
                process.kill()
                process.join()
        assert blow is not None or all(process.exitcode == 0 for process in group)
        return fell

    def outcome(self) -> tuple[dict[str, bytes], str]:
        """The whole last state, weights, optimiser and curves, without the time that it took; and the best model."""
        loop = self.store.load_checkpoint(STEPS).loop
        state = dict(loop) | {"trainer": dict(loop["trainer"]) | {"seconds": 0.0}}
        best = self.store.load_history().best
        assert best is not None
        return checkpoint.to_files(state), self.store.load_best(best.step).model_id


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_scenes(folder / "data")
    return folder


@pytest.fixture(scope="module", params=[("vgg16", 1), ("vgg16", 2), ("vgg16_bn", 1), ("vgg16_bn", 2)], ids=str)
def calm(request: pytest.FixtureRequest, place: Path) -> tuple[str, int, tuple[dict[str, bytes], str]]:
    """Network, workers, and what an undisturbed training of them ends as."""
    backbone, workers = request.param
    undisturbed = Training.begin(place, f"calm-{backbone}-{workers}", backbone, workers)
    undisturbed.train()
    return backbone, workers, undisturbed.outcome()


def test_a_killed_training_ends_as_the_undisturbed_one(
    seed: int, calm: tuple[str, int, tuple[dict[str, bytes], str]], place: Path
) -> None:
    backbone, workers, expected = calm
    drawn = random.Random(f"training {backbone} {workers} {seed}")
    training = Training.begin(place, f"{backbone}-{workers}-{seed}", backbone, workers)
    blow = (drawn.randrange(STEPS), drawn.uniform(0, LONGEST_PAUSE), drawn.randrange(workers))
    while not training.train(blow):  # it was over before
        blow = (max(0, blow[0] - 1), blow[1] / 2, blow[2])
        training.store.drop_checkpoints(0)
    training.train()
    files, best = training.outcome()
    assert files == expected[0]
    assert best == expected[1]
