"""How often an epoch shows each image: every one once, or those with rare classes more often.

The one thing to know: an epoch's order follows from the seed, the epoch's number and the images' weights alone, and has
as many places as there are images. So it is the same on any number of workers, and a run can go on in its middle.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fcn_core.data.class_pixels import ClassPresence

Sampling = Literal["uniform", "class_balanced"]

LARGEST_IMAGE_WEIGHT = 10.0
"""Of an image: a class that one image in a hundred holds, or less. More would be learning by heart."""


def image_weights(presence: ClassPresence) -> npt.NDArray[np.float64]:
    """How much more often than others each image is shown, float64 [images], 1..LARGEST_IMAGE_WEIGHT.

    A class that a share f of the images holds weighs 1 / sqrt(f), and an image as much as its rarest class: the repeat
    factor of Gupta, Dollar and Girshick (2019, section 4.3) with the threshold 1. An image without annotated pixels
    weighs 1.
    """
    table = presence.table()
    shares = table.mean(axis=0) if len(table) else np.ones(presence.classes)
    by_class = np.where(shares > 0, 1 / np.sqrt(np.maximum(shares, LARGEST_IMAGE_WEIGHT**-2)), 1.0)
    rarest: npt.NDArray[np.float64] = np.where(table, by_class, 1.0).max(axis=1, initial=1.0)
    return rarest


def epoch_order(
    images: int, seed: int, epoch: int, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """The images in the order that an epoch shows them, int64 [images].

    Without weights each occurs once. With them, an image of weight w occurs images * w / (sum of all weights) times:
    this number rounded down or up, by chance, so that it is right on average.
    """
    random = np.random.default_rng([seed, epoch])
    order: npt.NDArray[Any] = random.permutation(images)
    if weights is None:
        return order
    # Systematic sampling: equally spaced marks over the images laid end to end, each as long as its weight.
    ends = np.cumsum(weights[order])
    marks = (np.arange(images) + random.random()) * (ends[-1] / images)
    places = np.minimum(np.searchsorted(ends, marks, side="right"), images - 1)
    drawn: npt.NDArray[np.int64] = random.permutation(order[places])
    return drawn
