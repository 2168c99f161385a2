import pytest

from fcn_core.data.augmentation import Augmentation
from fcn_core.errors import DataError
from fcn_core.models.architecture import Architecture
from fcn_core.models.networks import ARCHS, network_spec
from fcn_core.training.shape_trial import check_shapes
from tests.fcn_core.tiny_training import config

RESNET = Architecture(arch="fcn8s", backbone="resnet50", num_classes=3, width=1.0, head_width=16)


def on_crops(side: int, **changes: object):
    return config(augmentation=Augmentation(crop_height=side, crop_width=side), **changes)


def test_one_cell_and_one_example_are_too_little_for_batch_normalization():
    with pytest.raises(DataError, match=r"resnet50 cannot be trained on crops of 32x32 with 1 example.*larger crops"):
        check_shapes(RESNET, on_crops(32, batch_size=1), workers=1)
    check_shapes(RESNET, on_crops(64, batch_size=1), workers=1)
    check_shapes(RESNET, on_crops(32, batch_size=2), workers=2)
    with pytest.raises(DataError, match="1 example"):
        check_shapes(RESNET, on_crops(32, batch_size=2, sync_batch_norm=False), workers=2)
    with pytest.raises(DataError, match="1 example"):
        check_shapes(RESNET, on_crops(32, batch_size=2, gradient_accumulation_steps=2), workers=1)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_is_found_fit_for_ordinary_crops(arch):
    backbone = network_spec(arch).backbones[0]
    check_shapes(Architecture(arch=arch, backbone=backbone, num_classes=3), on_crops(128), workers=1)
