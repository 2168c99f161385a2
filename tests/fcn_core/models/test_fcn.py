"""The networks: sizes, strides, and that the fused whole is what the paper's figure says."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach
from fcn_core.models.backbones.vgg import VGG16
from fcn_core.models.building import build
from fcn_core.models.fcn import final_upsample
from tests.fcn_core.nets import small_net

ARCHS = ["fcn16s", "fcn32s", "fcn8s"]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("upsampling", ["transposed", "interpolate"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (31, 33), (32, 64), (97, 15)])
def test_logits_have_the_images_size(arch: str, upsampling: str, size: tuple[int, int]) -> None:
    model = small_net(arch, upsampling)
    with torch.inference_mode():
        assert model(torch.randn(1, 3, *size)).shape == (1, 5, *size)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.sampled_from(ARCHS))
def test_any_size_gives_one_cell_per_started_stride(height: int, width: int, arch: str) -> None:
    model = small_net(arch)
    x = torch.randn(1, 3, height, width)
    with torch.inference_mode():
        for stride, feature in zip((8, 16, 32), model.features(x), strict=True):
            assert feature.shape[-2:] == (-(-height // stride), -(-width // stride))
        scores = model.scores(x)
        assert scores.shape[-2:] == (-(-height // model.stride), -(-width // model.stride))
        assert torch.equal(model(x), final_upsample(scores, model.stride, (height, width)))


@pytest.mark.parametrize(
    ("arch", "parameters"), [("fcn32s", 134_346_581), ("fcn16s", 134_364_410), ("fcn8s", 134_376_863)]
)
def test_parameter_counts_are_the_papers_without_the_fixed_last_upsampling(arch: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build(Architecture.model_validate({"arch": arch, "num_classes": 21}))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_vgg16_has_torchvisions_parameters() -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        ours = {name: tensor.shape for name, tensor in VGG16().state_dict().items()}
        theirs = vgg16().state_dict()
    assert ours == {name: tensor.shape for name, tensor in theirs.items() if name.startswith("features.")}


def test_new_score_layers_are_zero() -> None:
    model = build(Architecture(num_classes=4, width=0.125, head_width=8))
    assert not model.scores(torch.randn(1, 3, 40, 40)).any()


def test_layers_carry_the_papers_names() -> None:
    names = {name for name, _ in small_net("fcn8s").named_children()}
    assert {"fc6", "fc7", "score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4"} <= names
    assert "score_pool4" not in dict(small_net("fcn32s").named_children())
    assert "score_pool3" not in dict(small_net("fcn16s").named_children())


def test_fcn8s_fuses_coarse_to_fine() -> None:
    model = small_net("fcn8s", "interpolate")
    x = torch.randn(1, 3, 70, 90)
    with torch.inference_mode():
        pool3, pool4, pool5 = model.features(x)
        expected = model.score_fr(F.relu(model.fc7(F.relu(model.fc6(pool5)))))
        for score, pool in ((model.score_pool4, pool4), (model.score_pool3, pool3)):
            doubled = F.interpolate(expected, scale_factor=2, mode="bilinear")
            expected = doubled[:, :, : pool.shape[2], : pool.shape[3]] + score(pool)
        torch.testing.assert_close(model.scores(x), expected)


def test_learned_upsampling_starts_bilinear_away_from_the_edge() -> None:
    learned, fixed = small_net("fcn16s").upscore2, small_net("fcn16s", "interpolate").upscore2
    scores = torch.randn(1, 5, 6, 7)
    torch.testing.assert_close(learned(scores)[..., 1:-1, 1:-1], fixed(scores)[..., 1:-1, 1:-1])


def test_final_upsample_keeps_centres_and_clamps_edges() -> None:
    logits = final_upsample(torch.tensor([[[[0.0, 1.0]]]]), 8, (8, 15))
    assert logits.shape == (1, 1, 8, 15)
    assert logits[0, 0, 0, :4].tolist() == [0, 0, 0, 0]
    assert logits[0, 0, 0, 4].item() == pytest.approx(1 / 16)
    assert torch.equal(logits[0, 0, 0], logits[0, 0, 7])


def test_reach_of_pool5_is_that_of_a_212_pixel_receptive_field() -> None:
    assert VGG16(width=0.125).reach() == (212 - 32) // 2


def test_reach_is_where_influence_ends() -> None:
    trunk = VGG16(width=0.125).double().eval()
    reach = trunk.reach()
    x = torch.randn(1, 3, 32, 512, dtype=torch.double, requires_grad=True)
    trunk(x).stride32[0, :, 0, 7].sum().backward()  # the cell of pixels 224..255
    assert x.grad is not None
    touched = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert 224 - reach <= touched.min()
    assert touched.max() <= 255 + reach


def test_reach_counts_the_longer_side() -> None:
    assert receptive_reach([nn.Conv2d(1, 1, 4, padding=0)]) == 3
    assert receptive_reach([nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]) == 1


def test_width_scales_channels_in_eights() -> None:
    assert VGG16(width=0.01).channels == (8, 8, 8)
    assert VGG16(width=0.3).channels == (80, 152, 152)


@pytest.mark.parametrize(
    "wrong", [{"num_classes": 0}, {"num_classes": 256}, {"width": 0.0}, {"arch": "fcn4s"}, {"depth": 3}]
)
def test_impossible_architectures_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Architecture.model_validate({"num_classes": 5, **wrong})


def test_trains_from_random_weights() -> None:
    model = small_net().train()
    loss = F.cross_entropy(model(torch.randn(2, 3, 40, 50)), torch.randint(0, 5, (2, 40, 50)))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
