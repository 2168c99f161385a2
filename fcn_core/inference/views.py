"""Test-time augmentation: an image is seen several times, mirrored and in other sizes, and its scores are averaged.

The one thing to know: the average lies on the cells of the largest view. There, scores of the others are interpolated
between their cells, so what the largest view resolves is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage
from torch import Tensor

from fcn_core.errors import PredictionError
from fcn_core.inference.engines.engine import Image
from fcn_core.models.upsampling import Axis, Upsampling

LARGEST_VIEW = 1 << 28
"""Pixels of an enlarged view, 16384 x 16384: a scale must not undo the limit within which an image was decoded."""


@dataclass(frozen=True)
class Grid:
    """How the cells of scores lie over an image: upsampling leads to its pixels; so many rows and columns of the cells
    are the image's, and not its padding's.
    """

    upsampling: Upsampling
    rows: int
    columns: int


@dataclass(frozen=True)
class Scored:
    """Scores, [N, C, h, w] of any float type, of images of one size."""

    scores: Tensor
    grid: Grid


def averaged(
    images: Sequence[Image], scales: Sequence[float], flip: bool, score: Callable[[Sequence[Image]], Scored]
) -> Scored:
    """The mean of the scores of all views of images of one size, each uint8 [H, W, 3], float32 on the largest's cells.

    scales: of height and width. flip: each is seen mirrored left to right, too. `score` scores images of one size. The
    grid is over the largest view; `Upsampling.stretched` leads to the pixels of the images.
    """
    largest = score([resized(image, max(scales)) for image in images])
    views = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    views.remove((max(scales), False))
    total = largest.scores.float().clone()  # the engine may use its memory again
    for scale, mirrored in views:
        scaled = [resized(image, scale) for image in images]
        seen = score([image[:, ::-1] for image in scaled] if mirrored else scaled)
        total += _on_cells(seen, largest.grid.upsampling, mirrored)
    return Scored(total / (len(views) + 1), largest.grid)


def resized(image: Image, scale: float) -> Image:
    """The image with its height and width times `scale`, at least one pixel; smoothed where it becomes smaller."""
    height, width = scaled_size(image.shape[:2], scale)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(PillowImage.fromarray(image).resize((width, height), PillowImage.Resampling.BILINEAR))


def require_size(size: tuple[int, int], scales: Sequence[float]) -> None:
    """Raises PredictionError if an image of this size has a view that is enlarged to more than LARGEST_VIEW pixels."""
    height, width = scaled_size(size, max(scales))
    if max(scales) > 1 and height * width > LARGEST_VIEW:
        raise PredictionError(
            f"at scale {max(scales):g} an image of {size[1]}x{size[0]} has {height * width:,} pixels, and a view has"
            f" {LARGEST_VIEW:,} at most; leave that scale out, or let images be made smaller first (max_side)"
        )


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width times `scale`, rounded, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _on_cells(seen: Scored, base: Upsampling, mirrored: bool) -> Tensor:
    """A view's scores where the cells of `base` lie, which is an upsampling to another size of the same image."""
    rows = _positions(seen.grid.upsampling.rows, base.rows, mirrored=False)
    columns = _positions(seen.grid.upsampling.columns, base.columns, mirrored)
    return _read(_read(seen.scores, rows, dim=2), columns, dim=3)


def _positions(axis: Axis, base: Axis, mirrored: bool) -> npt.NDArray[np.float64]:
    """Where the cells of `base` lie among those of `axis`."""
    pixels = (np.arange(base.cells) - base.origin) / base.step
    pixels = (pixels + 0.5) * (axis.pixels / base.pixels) - 0.5
    if mirrored:
        pixels = axis.pixels - 1 - pixels
    return (axis.origin + axis.step * pixels).clip(0, axis.cells - 1)


def _read(scores: Tensor, positions: npt.NDArray[np.float64], dim: int) -> Tensor:
    """Scores between cells of one dimension, by linear interpolation."""
    if np.array_equal(positions, np.arange(scores.shape[dim])):
        return scores
    below = np.floor(positions)
    shape = [1] * scores.ndim
    shape[dim] = -1
    weight = torch.from_numpy((positions - below).astype(np.float32)).view(shape).to(scores.device)
    first = torch.from_numpy(below.astype(np.int64)).to(scores.device)
    second = (first + 1).clamp(max=scores.shape[dim] - 1)
    return scores.index_select(dim, first).float().lerp(scores.index_select(dim, second).float(), weight)
