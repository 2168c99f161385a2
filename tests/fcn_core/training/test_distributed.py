"""Two processes that train together, over gloo, against one that trains alone.

What they compute is compared in float64: two workers add up in another order than one, and in float32 each CPU rounds
that in its own way, a difference that grows from step to step.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fcn_core.bundle import ModelBundle
from fcn_core.data.datasets import Example, InMemory
from fcn_core.errors import DataError, DivergedError
from fcn_core.inference.evaluation import evaluate
from fcn_core.models.architecture import Architecture
from fcn_core.models.fcn import FCN
from fcn_core.training import checkpoint
from fcn_core.training import trainer as trainer_module
from fcn_core.training.config import LoopPlan
from fcn_core.training.loop import TrainingLoop
from fcn_core.training.trainer import Trainer
from tests.fcn_core.tiny_training import LABELS, SETTINGS, TINY, config, fresh_model, halves

HALF = 12
STILL = TINY.model_copy(update={"dropout": 0.0})
NORMED = STILL.model_copy(update={"backbone": "vgg16_bn"})


def double_model(architecture: Architecture = STILL) -> FCN:
    """A network without dropout that computes in float64, whatever it is given."""
    model = fresh_model(architecture).double()
    model.register_forward_pre_hook(lambda module, inputs: tuple(tensor.double() for tensor in inputs))
    return model


class Silent:
    def report(self, report, history): ...
    def validated(self, point, tiles): ...
    def best(self, bundle): ...
    def checkpoint(self, step, state): ...


class Keeping(Silent):
    def best(self, bundle):
        self.model = bundle


def resume(file: Path, architecture: Architecture) -> None:
    """Whether a training taken up at its third step ends as the undisturbed one, in every bit."""
    setting = config(steps=6, batch_size=4, ema_decay=0.9)
    whole = Trainer(fresh_model(architecture), halves(7), setting)
    states = [checkpoint.to_files(whole.state_dict()) for report in whole.run() if report.step in (3, 6)]
    resumed = Trainer(fresh_model(architecture), halves(7), setting)
    resumed.load_state_dict(checkpoint.from_files(states[0]))
    resumed.fit()
    seconds = {"seconds": 0.0}
    same = checkpoint.to_files(resumed.state_dict() | seconds) == checkpoint.to_files(whole.state_dict() | seconds)
    file.write_text(str(same))


def train(folder: Path, task: str) -> None:
    rank = dist.get_rank() if dist.is_initialized() else 0
    if task == "losses":
        trainer = Trainer(double_model(), halves(7), config(steps=30, batch_size=4, gradient_accumulation_steps=2))
        losses = []
        for report in trainer.run():
            losses.append(report.loss)
            if report.step == HALF and rank == 0:
                for name, content in checkpoint.to_files(trainer.state_dict()).items():
                    (folder / name).write_bytes(content)
        (folder / f"losses-{rank}.json").write_text(json.dumps(losses))
    elif task == "validation":
        trainer = Trainer(double_model(), halves(7), config(steps=6, batch_size=4))
        loop = TrainingLoop(trainer, halves(5), LoopPlan(validate_every=1), Silent())
        (folder / f"history-{rank}.json").write_text(loop.run().model_dump_json())
    elif task == "norms":
        # An odd batch: what is normalized together must not be cut otherwise by workers with unequal shares.
        trainer = Trainer(double_model(NORMED), halves(7), config(steps=6, batch_size=5))
        outcome = [[report.loss, report.grad_norm] for report in trainer.run()]
        state = {name: value.double().sum().item() for name, value in trainer.model.state_dict().items()}
        (folder / f"norms-{rank}.json").write_text(json.dumps([outcome, state]))
    elif task == "own norms":
        setting = config(steps=6, batch_size=4, sync_batch_norm=False, ema_decay=0.9)
        trainer = Trainer(fresh_model(NORMED), halves(7), setting)
        keeper = Keeping()
        history = TrainingLoop(trainer, halves(5), LoopPlan(validate_every=1), keeper).run()
        (folder / f"own-norms-{rank}.json").write_text(history.model_dump_json())
        if rank == 0:
            keeper.model.save(folder / "own-norms")
    elif task == "precision":
        trainer_module.has_bfloat16 = lambda device: rank == 0
        (folder / f"precision-{rank}").write_text(Trainer(fresh_model(), halves(2), config(precision="auto")).precision)
    elif task == "resume norms":
        resume(folder / f"same-norms-{rank}", NORMED)
    elif task == "resume":
        resume(folder / f"same-{rank}", TINY)
    elif task == "budget":
        trainer = Trainer(fresh_model(), halves(7), config(steps=10_000, max_seconds=0.3))
        (folder / f"steps-{rank}").write_text(str(sum(1 for _ in trainer.run())))
    elif task == "uneven":
        # Of each step's two examples one has no label at all; which worker gets it differs from step to step.
        blank = np.full((48, 56), 255, np.uint8)
        labelled = halves(1)[0]
        examples = [Example("blank", labelled.image, blank), labelled]
        trainer = Trainer(double_model(), InMemory(examples, LABELS), config(steps=8))
        reports = list(trainer.run())
        finite = all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
        outcome = {"losses": [r.loss for r in reports], "names": [r.names for r in reports], "finite": finite}
        (folder / f"uneven-{rank}.json").write_text(json.dumps(outcome))
    elif task == "divergence":
        trainer = Trainer(fresh_model(), halves(2), config(batch_size=2))
        if rank == 0:
            with torch.no_grad():
                trainer.model.score_fr.bias.fill_(float("nan"))
        try:
            next(trainer.run())
        except DivergedError as error:
            (folder / f"error-{rank}").write_text(str(error))
    elif task == "too many":
        with pytest.raises(DataError, match="batch_size of 1 cannot be shared by 2 workers"):
            Trainer(fresh_model(), halves(2), config(batch_size=1))
        (folder / f"refused-{rank}").touch()


def _process(rank: int, folder: Path, tasks: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for task in tasks:
        train(folder, task)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote, all tasks in one pair of them: starting a pair is what takes long."""
    folder = tmp_path_factory.mktemp("together")
    tasks = (
        *("losses", "validation", "resume", "budget", "uneven", "divergence", "too many"),
        *("norms", "own norms", "resume norms", "precision"),
    )
    mp.start_processes(_process, (folder, tasks), nprocs=2, start_method="spawn")
    return folder


def test_two_workers_take_the_steps_of_one(together, tmp_path):
    train(tmp_path, "losses")
    alone = json.loads((tmp_path / "losses-0.json").read_text())
    first, second = (json.loads((together / f"losses-{rank}.json").read_text()) for rank in (0, 1))
    assert len(alone) == 30
    assert first == second
    assert first == pytest.approx(alone, rel=1e-10)
    assert alone[-1] < 0.7 * alone[0]  # it is training that is compared, not standing still


def test_what_two_workers_began_one_goes_on_with(together):
    saved = {name: (together / name).read_bytes() for name in (checkpoint.STATE_FILE, checkpoint.TENSORS_FILE)}
    trainer = Trainer(double_model(), halves(7), config(steps=30, batch_size=4, gradient_accumulation_steps=2))
    trainer.load_state_dict(checkpoint.from_files(saved))
    assert trainer.step == HALF
    whole = json.loads((together / "losses-0.json").read_text())
    assert [report.loss for report in trainer.run()] == pytest.approx(whole[HALF:], rel=1e-10)


def test_two_workers_share_validation(together, tmp_path):
    train(tmp_path, "validation")
    histories = [json.loads((together / f"history-{rank}.json").read_text()) for rank in (0, 1)]
    assert histories[0] == histories[1]
    alone = json.loads((tmp_path / "history-0.json").read_text())
    shared = histories[0]["validations"]
    assert [point["step"] for point in shared] == [point["step"] for point in alone["validations"]]
    assert all(point["scores"]["pixels"] == 5 * 48 * 56 for point in shared)
    assert shared[-1]["scores"]["mean_iou"] == pytest.approx(alone["validations"][-1]["scores"]["mean_iou"], abs=1e-3)


def test_two_workers_resume_bit_for_bit(together):
    assert [(together / f"same-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_precision_auto_is_what_the_hardware_of_both_has(together):
    assert [(together / f"precision-{rank}").read_text() for rank in (0, 1)] == ["float32", "float32"]


def test_a_time_budget_ends_both_workers_with_the_same_step(together):
    steps = [int((together / f"steps-{rank}").read_text()) for rank in (0, 1)]
    assert steps[0] == steps[1] >= 1


def test_a_worker_without_any_label_adds_nothing_to_the_step(together, tmp_path):
    train(tmp_path, "uneven")
    alone = json.loads((tmp_path / "uneven-0.json").read_text())
    shared = [json.loads((together / f"uneven-{rank}.json").read_text()) for rank in (0, 1)]
    assert ["blank"] in shared[0]["names"]
    assert ["blank"] in shared[1]["names"]
    for outcome in shared:
        assert outcome["finite"]
        assert outcome["losses"] == pytest.approx(alone["losses"], rel=1e-10)


def test_divergence_of_one_worker_stops_both_and_names_its_examples(together):
    errors = [(together / f"error-{rank}").read_text() for rank in (0, 1)]
    assert all("the loss of step 1 is nan" in error for error in errors)
    assert errors[0] == errors[1]
    assert "example-" in errors[0]


def test_more_workers_than_examples_a_step_are_refused(together):
    assert all((together / f"refused-{rank}").exists() for rank in (0, 1))


def test_with_batch_normalization_two_workers_take_the_steps_of_one(together, tmp_path):
    train(tmp_path, "norms")
    steps, state = json.loads((tmp_path / "norms-0.json").read_text())
    for rank in (0, 1):
        shared_steps, shared_state = json.loads((together / f"norms-{rank}.json").read_text())
        np.testing.assert_allclose(shared_steps, steps, rtol=1e-9)
        assert shared_state.keys() == state.keys()
        for name, value in state.items():
            assert shared_state[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_with_batch_normalization_two_workers_resume_bit_for_bit(together):
    assert [(together / f"same-norms-{rank}").read_text() for rank in (0, 1)] == ["True", "True"]


def test_scores_of_workers_with_statistics_of_their_own_are_those_of_the_model_that_is_saved(together):
    points = json.loads((together / "own-norms-0.json").read_text())["validations"]
    best = max(points, key=lambda point: (point["scores"]["mean_iou"], -point["step"]))
    found = evaluate(ModelBundle.load(together / "own-norms"), halves(5), SETTINGS)
    assert found.model_dump(mode="json") == best["scores"]
