"""Sets of many names in little memory: eight bytes per name."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Marks = npt.NDArray[np.uint64]


def marks(names: Iterable[str]) -> Marks:
    """A number for each name, in order. Two names in 2^64 share one."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, np.uint64)


def mark_set(pieces: Iterable[Marks]) -> Marks:
    """The marks of all pieces as one sorted array."""
    return np.unique(np.concatenate([*pieces, marks([])]))
