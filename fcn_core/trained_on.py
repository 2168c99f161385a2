"""Which images a model was trained on, as digests of their pixels: so that whoever scores it can say how many it knows.

The one thing to know: a digest is of the decoded pixels. A copy, another name, a lossless re-encoding and new metadata
leave it as it is; one changed pixel makes another. It says nothing about what an image shows.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DIGEST_BYTES = 8
"""Of two million images, two different ones have the same digest with a chance of 1 in ten million."""

MOST_DIGESTS = 1 << 20
"""Kept of one model, 8 MiB. Of more images the smallest are kept, which are a fair sample."""


def pixel_digest(image: npt.NDArray[np.uint8]) -> bytes:
    """The digest of an image's pixels, uint8 [H, W, 3]: DIGEST_BYTES bytes."""
    digest = hashlib.blake2b(f"{image.shape[1]}x{image.shape[0]}\n".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


@dataclass(frozen=True)
class TrainedOn:
    """The images that a model was trained on: how many different ones, and their digests, sorted and joined."""

    images: int
    digests: bytes

    @classmethod
    def of(cls, digests: Iterable[bytes]) -> "TrainedOn":
        """Of these pixel digests, in any order."""
        different = sorted(set(digests))
        return cls(len(different), b"".join(different[:MOST_DIGESTS]))

    @property
    def complete(self) -> bool:
        """Whether the digests of all images were kept."""
        return self.images * DIGEST_BYTES == len(self.digests)

    def __or__(self, other: "TrainedOn") -> "TrainedOn":
        """These images and those of another model, from which this one was started."""
        together = TrainedOn.of([*self._each(), *other._each()])
        if self.complete and other.complete:
            return together
        return TrainedOn(max(self.images, other.images, together.images), together.digests)

    def count(self, digests: Iterable[bytes]) -> int:
        """How many of these images, by their pixel digests, it was trained on; at least so many unless `complete`."""
        known = set(self._each())
        return sum(digest in known for digest in digests)

    def _each(self) -> list[bytes]:
        # Not as an array of strings: NumPy's lose trailing zeros.
        values: list[Any] = np.frombuffer(self.digests, f"V{DIGEST_BYTES}").tolist()
        return values
