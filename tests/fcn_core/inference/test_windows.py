"""Windows: what is the same everywhere is the same through windows, and memory does not grow with the image."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_core.errors import PredictionError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.windows import label_windows, starts
from tests.fcn_core.nets import photo


@pytest.mark.parametrize("length", [1, 64, 65, 96, 200, 333, 1000])
@pytest.mark.parametrize("window", [64, 96])
def test_windows_cover_an_axis_and_overlap_by_a_quarter(length: int, window: int) -> None:
    begins = starts(length, window)
    assert begins[0] == 0
    assert begins[-1] + window >= length
    assert all(begin % 32 == 0 for begin in begins)
    assert all(0 < after - before <= window - window // 4 + 16 for before, after in pairwise(begins))


def _local(stride: int, seen: list[tuple[int, ...]]) -> "object":
    """Scores of a network that looks at its own cell alone: four classes, by mean colours."""

    def scores_of(part: Image) -> Tensor:
        seen.append(part.shape)
        pixels = torch.from_numpy(part).permute(2, 0, 1)[None].float()
        cells = F.avg_pool2d(pixels, stride)
        return torch.cat([cells, 128 + 0 * cells[:, :1]], 1) / 32

    return scores_of


def _whole(image: Image, stride: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    height, width = (-(-side // stride) * stride for side in image.shape[:2])
    padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
    scores = _local(stride, [])(padded)  # type: ignore[operator]
    logits = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    return scores, logits[..., : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize("stride", [1, 4, 8, 32])
@pytest.mark.parametrize("size", [(64, 401), (333, 64), (301, 415)])
def test_of_a_network_that_looks_at_one_cell_windows_give_the_mask_of_the_whole(
    stride: int, size: tuple[int, int]
) -> None:
    image = photo(*size)
    seen: list[tuple[int, ...]] = []
    found = label_windows(image, (64, 96), size, _local(stride, seen), with_probabilities=True)  # type: ignore[arg-type]
    scores, logits = _whole(image, stride, size)
    assert set(seen) == {(64, 96, 3)}
    # At the right and the bottom the last cell ends, and windows see the edge repeated beyond.
    inside = slice(0, max(1, size[0] - stride)), slice(0, max(1, size[1] - stride))
    assert (found.mask == logits.argmax(1)[0])[inside].double().mean() >= 0.999
    assert int(found.areas.sum()) == size[0] * size[1]
    assert torch.equal(torch.bincount(found.mask.flatten().long(), minlength=4), found.areas)
    assert found.probabilities is not None
    cells = tuple(-(-side // stride) for side in size)
    assert found.probabilities.shape == (4, *cells)
    whole = slice(None), slice(0, cells[0] - 1), slice(0, cells[1] - 1)
    torch.testing.assert_close(found.probabilities[whole], scores.softmax(1)[0][whole], atol=1e-4, rtol=1e-4)
    assert float(found.confidence) == pytest.approx(float(scores.softmax(1).amax(1).mean()), abs=0.02)
    assert bool(found.finite)


def test_cells_that_fall_on_no_grid_are_a_sentence() -> None:
    with pytest.raises(PredictionError, match="do not fall on one grid with those of other windows"):
        label_windows(np.zeros((200, 200, 3), np.uint8), (64, 64), (200, 200), lambda part: torch.zeros(1, 3, 13, 13))
