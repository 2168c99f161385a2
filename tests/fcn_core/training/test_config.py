from typing import NamedTuple

import pytest
from pydantic import ValidationError

from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build
from fcn_core.training.config import TrainConfig, recipe
from fcn_core.training.optimizer import learning_rate, make_optimizer, set_learning_rate


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
        ({"class_weights": (1.0, -1.0)}, "class_weights"),
        ({"device": "gpu"}, "device"),
        ({"augmentation": {"crop_height": None}}, "go together"),
    ],
)
def test_what_contradicts_itself_is_refused_with_its_values(options, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(options)


class Solver(NamedTuple):
    """What shelhamer/fcn.berkeleyvision.org has in solver.prototxt, and of the loss layer and the layers' `param` in
    train.prototxt: `bias` is (lr_mult, decay_mult) of the convolutions' biases. All have weight_decay 0.0005, a fixed
    rate, and (1, 1) for weights, (2, 0) for the biases of score layers and lr_mult 0 for every transposed convolution.
    """

    base_lr: float
    momentum: float
    iter_size: int
    max_iter: int
    normalize: bool
    bias: tuple[float, float]


SOLVERS = {
    "fcn32s_padded": Solver(1e-10, 0.99, 1, 100_000, normalize=False, bias=(2, 0)),
    "fcn16s_padded": Solver(1e-12, 0.99, 1, 100_000, normalize=False, bias=(2, 0)),
    "fcn8s_padded": Solver(1e-14, 0.99, 1, 100_000, normalize=False, bias=(2, 0)),
    "fcn8s_atonce_padded": Solver(1e-10, 0.99, 1, 300_000, normalize=False, bias=(2, 0)),
    "fcn_alexnet_padded": Solver(1e-4, 0.9, 20, 100_000, normalize=True, bias=(1, 1)),
}
OURS_LIKE = {"fcn32s": "fcn32s_padded", "fcn16s": "fcn16s_padded", "fcn8s": "fcn8s_padded"}
ALL = {arch: SOLVERS[OURS_LIKE.get(arch, arch)] for arch in (*SOLVERS, *OURS_LIKE)}


@pytest.mark.parametrize(("arch", "solver"), ALL.items(), ids=list(ALL))
def test_the_papers_recipe_is_the_authors_solver_file(arch, solver):
    config = recipe("paper", arch)
    assert (config.optimizer, config.momentum) == ("sgd", solver.momentum)
    assert [learning_rate(config, step, progress) for step, progress in ((0, 0.0), (999, 0.9))] == [solver.base_lr] * 2
    assert config.total_steps(1000) == solver.max_iter
    # Caffe's gradient accumulation is over images of one batch each: a mean of their own losses.
    assert (config.batch_size, config.gradient_accumulation_steps) == (solver.iter_size, solver.iter_size)
    assert config.loss == ("image_mean" if solver.normalize else "sum")
    assert config.max_grad_norm is None
    assert config.augmentation.crop_height is None
    assert config.augmentation.flip == 0


@pytest.mark.parametrize(("arch", "solver"), ALL.items(), ids=list(ALL))
def test_the_papers_recipe_has_the_authors_multipliers_for_every_layer(arch, solver):
    config = recipe("paper", arch)
    model = build(Architecture(arch=arch, num_classes=3, width=0.125, head_width=8))
    optimizer = make_optimizer(model, config)
    set_learning_rate(optimizer, config.learning_rate)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        if name.startswith("upscore"):
            assert id(parameter) not in found, "lr_mult 0"
            assert not parameter.requires_grad
            continue
        is_bias = name.endswith("bias")
        rate, decay = (2, 0) if is_bias and name.startswith("score_") else solver.bias if is_bias else (1, 1)
        assert found[id(parameter)] == pytest.approx((rate * solver.base_lr, decay * 5e-4)), name


def test_the_papers_recipe_is_refused_for_torchvisions_network():
    with pytest.raises(ValueError, match=r"tv_fcn is not one of them.*fcn8s_atonce_padded"):
        recipe("paper", "tv_fcn")
    assert recipe("modern", "tv_fcn") == TrainConfig()
