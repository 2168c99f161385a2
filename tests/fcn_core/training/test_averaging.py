"""Averaged weights: computed as stated, scored and kept instead of the last step's, and resumed exactly."""

import pytest
import torch

from fcn_core.bundle import ModelBundle
from fcn_core.training import checkpoint
from fcn_core.training.averaging import WeightAverage
from fcn_core.training.config import LoopPlan
from fcn_core.training.loop import TrainingLoop
from fcn_core.training.trainer import Trainer
from tests.fcn_core.tiny_training import TINY, config, fresh_model, halves

NORMED = TINY.model_copy(update={"backbone": "vgg16_bn", "dropout": 0.0})


def random_weights(model, seed):
    """Another value in every parameter and buffer of a model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator))
            else:
                value.fill_(seed)


def test_the_average_is_the_one_of_the_formula():
    decay = 0.3
    model = fresh_model(NORMED)
    average = WeightAverage(model, decay)
    for seed in range(5):
        random_weights(model, seed)
        now = {name: value.clone() for name, value in model.state_dict().items()}
        if seed == 0:
            expected = now
        else:
            kept = min(decay, (seed + 1) / (seed + 10))
            expected = {name: kept * expected[name] + (1 - kept) * value for name, value in now.items()}
        average.update(model)
    assert {(seed + 1) / (seed + 10) < decay for seed in range(1, 5)} == {True, False}
    found = average.network.state_dict()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], msg=name)
        else:
            assert int(value) == 4, name
    assert any("running_var" in name for name in found)


def test_what_is_kept_has_the_averaged_weights_and_the_training_goes_on_from_its_own():
    plain, averaging = (Trainer(fresh_model(), halves(), config(steps=6, ema_decay=decay)) for decay in (None, 0.9))
    losses = [[report.loss for report in trainer.run()] for trainer in (plain, averaging)]
    assert losses[0] == losses[1]
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, averaging.model.state_dict()[name]), name
    kept, last = (trainer.bundle().state for trainer in (averaging, plain))
    assert any(not torch.equal(kept[name], last[name]) for name in kept)
    assert all(torch.equal(value, averaging.judged.state_dict()[name]) for name, value in kept.items())


def test_the_averaged_network_is_the_one_that_is_scored():
    class Keeper:
        def report(self, report, history): ...
        def validated(self, point, tiles): ...
        def checkpoint(self, step, state): ...
        def best(self, bundle):
            self.model = bundle

    keeper = Keeper()
    trainer = Trainer(fresh_model(), halves(), config(steps=4, ema_decay=0.9))
    history = TrainingLoop(trainer, halves(3), LoopPlan(validate_every=100), keeper).run()
    assert history.validations[-1].step == 4
    assert keeper.model.weights_sha256 == trainer.bundle().weights_sha256
    last = ModelBundle.from_model(trainer.model, halves().labels, trainer.normalization)
    assert keeper.model.weights_sha256 != last.weights_sha256


@pytest.mark.parametrize("architecture", [TINY, NORMED])
def test_a_resumed_run_ends_with_the_same_average_bit_for_bit(architecture):
    setting = config(steps=6, ema_decay=0.9)
    whole = Trainer(fresh_model(architecture), halves(), setting)
    states = [checkpoint.to_files(whole.state_dict()) for report in whole.run() if report.step == 3]
    resumed = Trainer(fresh_model(architecture), halves(), setting)
    resumed.load_state_dict(checkpoint.from_files(states[0]))
    resumed.fit()
    assert resumed.bundle().weights_sha256 == whole.bundle().weights_sha256


@pytest.mark.parametrize("decay", [0, 1, -0.5, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(ValueError, match="ema_decay"):
        config(ema_decay=decay)
