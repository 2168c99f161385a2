"""Networks from descriptions, with values and without."""

import subprocess
import sys

import pytest
import torch

from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build, build_without_values
from fcn_core.models.networks import ARCHS, ArchName


@pytest.mark.parametrize("arch", ARCHS)
def test_a_network_without_values_has_the_shapes_of_one_with(arch: ArchName) -> None:
    narrow = {} if arch.startswith("tv_") else {"head_width": 16, "width": 0.125}
    architecture = Architecture.model_validate({"arch": arch, "num_classes": 5, **narrow})
    state, shapes = build(architecture).state_dict(), build_without_values(architecture).state_dict()
    assert {name: (each.shape, each.dtype) for name, each in shapes.items()} == {
        name: (each.shape, each.dtype) for name, each in state.items()
    }
    assert all(tensor.is_meta for tensor in shapes.values())


def test_values_are_drawn_again_afterwards() -> None:
    build_without_values(Architecture(num_classes=2, backbone="mobilenet_v3_large", width=0.25))
    assert torch.empty(100).normal_().std() > 0.1


def test_no_network_without_values_needs_pytorchs_compiler() -> None:
    program = (
        "import sys\n"
        "from fcn_core.models.architecture import Architecture\n"
        "from fcn_core.models.building import build_without_values\n"
        "from fcn_core.models.networks import ARCHS, network_spec\n"
        "for arch in ARCHS:\n"
        "    for backbone in network_spec(arch).backbones:\n"
        "        build_without_values(Architecture(arch=arch, backbone=backbone, num_classes=2))\n"
        "        assert 'torch._dynamo' not in sys.modules, (arch, backbone)\n"
        "assert 'torchvision' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
