"""Windows: what is the same everywhere is the same through windows, and memory does not grow with the image."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_core.errors import PredictionError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.fit import pad
from fcn_core.inference.windows import _weights, label_windows, starts
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


@pytest.mark.parametrize(
    ("size", "window"),
    [((480, 415), (256, 96)), ((415, 480), (96, 256)), ((224, 1000), (256, 128)), ((90, 70), (96, 96))],
)
def test_scores_of_windows_that_disagree_are_blended_by_their_weights(
    size: tuple[int, int], window: tuple[int, int]
) -> None:
    """Of windows of 256, up to three meet over 480 pixels."""
    image, stride = photo(*size), 4

    def scores_of(part: Image) -> Tensor:
        scores = _local(stride, [])(part)  # type: ignore[operator]
        return scores + scores.mean((2, 3), keepdim=True).flip(1)

    begins = [starts(side, length) for side, length in zip(size, window, strict=True)]
    weights = [_weights(each, length, stride) for each, length in zip(begins, window, strict=True)]
    blended = torch.zeros(4, *((each[-1] + length) // stride for each, length in zip(begins, window, strict=True)))
    for top, row_weights in zip(begins[0], weights[0], strict=True):
        for left, column_weights in zip(begins[1], weights[1], strict=True):
            part = pad(np.ascontiguousarray(image[top : top + window[0], left : left + window[1]]), window)
            seen = scores_of(part)[0] * row_weights[:, None] * column_weights
            blended[:, top // stride :, left // stride :][:, : seen.shape[1], : seen.shape[2]] += seen
    found = label_windows(image, window, size, scores_of, with_probabilities=True)
    own = tuple(-(-side // stride) for side in size)
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities, blended[:, : own[0], : own[1]].softmax(0), atol=1e-5, rtol=1e-4)
    logits = F.interpolate(blended[None], scale_factor=stride, mode="bilinear", align_corners=False)
    assert (found.mask == logits.argmax(1)[0, : size[0], : size[1]]).double().mean() >= 0.9999


_PEAKS = """
import re
from pathlib import Path
import numpy as np
import torch
from fcn_core.inference.windows import label_windows

scores = lambda part: torch.arange(21.0)[None, :, None, None].expand(1, 21, *part.shape[:2]).clone()
held = lambda what: int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
for size in ((200, 200), (1024, 3600), (3600, 1024)):
    image = np.zeros((*size, 3), np.uint8) + np.uint8(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on
    before = held("VmRSS")
    with torch.inference_mode():
        label_windows(image, (512, 512), size, scores)
    print(size[0], size[1], held("VmHWM") - before)
"""


def test_memory_is_that_of_windows_and_a_strip_as_high_as_they_overlap() -> None:
    """Windows of 512 on a wide and a high image, 21 classes and a score for each pixel. All scores of a row of windows
    of the wide one alone were 155 MB, and those of either image are 310."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    printed = subprocess.run([sys.executable, "-c", _PEAKS], check=True, capture_output=True, env=environment).stdout
    peaks = [int(line.split()[2]) for line in printed.splitlines()[1:]]
    assert len(peaks) == 2
    assert max(peaks) < 110_000_000


def test_cells_that_fall_on_no_grid_are_a_sentence() -> None:
    with pytest.raises(PredictionError, match="do not fall on one grid with those of other windows"):
        label_windows(np.zeros((200, 200, 3), np.uint8), (64, 64), (200, 200), lambda part: torch.zeros(1, 3, 13, 13))
