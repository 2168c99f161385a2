import pytest
from pydantic import ValidationError

from fcn_core.train_config import TrainConfig, recipe


def test_epochs_become_steps_of_the_batch_size():
    assert TrainConfig(epochs=2, batch_size=4).total_steps(367) == 184
    assert TrainConfig().total_steps(40) == 300  # thirty epochs where nothing is said
    assert TrainConfig(epochs=0.001).total_steps(5) == 1
    assert TrainConfig(steps=7).total_steps(10_000) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "epochs": 2}, "steps 3 and epochs 2 are both given"),
        ({"precision": "float16"}, "float16 needs a CUDA device"),
        ({"class_weights": (1.0, -1.0)}, "must be finite and not negative"),
        ({"device": "gpu"}, "device"),
        ({"augmentation": {"crop_height": None}}, "go together"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_values(options, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(options)


@pytest.mark.parametrize(("arch", "rate"), [("fcn32s", 1e-10), ("fcn16s_padded", 1e-12), ("fcn8s", 1e-14)])
def test_the_papers_recipe_is_the_authors(arch, rate):
    config = recipe("paper", arch)
    assert (config.optimizer, config.momentum, config.weight_decay) == ("sgd", 0.99, 5e-4)
    assert (config.learning_rate, config.bias_rate_factor, config.poly_power) == (rate, 2.0, 0.0)
    assert (config.batch_size, config.loss, config.steps) == (1, "sum", 100_000)
    assert config.augmentation.crop_height is None
    assert config.augmentation.flip == 0
