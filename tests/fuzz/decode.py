"""Target: image bytes to pixels. Pixels of the promised shape come out, or an DecodeError with a sentence."""

import warnings
from collections.abc import Iterable

import numpy as np
from PIL import Image

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError
from tests.hostile.files import disguises, odd_modes, overgrown_metadata
from tests.hostile.formats import KINDS, sample

MAX_PIXELS = 1_000_000
MEMORY_MB = 1024
LARGEST_SEED = 5_000

# What Pillow remarks about damaged files is not for us to hear. Its readers are loaded now, to be seen by the fuzzer.
warnings.simplefilter("ignore")
Image.init()


def seeds() -> Iterable[bytes]:
    yield from (sample(kind, 9, 12) for kind in KINDS)
    for file in (*odd_modes(), *overgrown_metadata(), *disguises()):
        if len(file.data) <= LARGEST_SEED:
            yield file.data


def check(data: bytes) -> None:
    try:
        decoded = decode(data, MAX_PIXELS)
    except DecodeError as error:
        refusal = error
    else:
        height, width, channels = decoded.pixels.shape
        assert decoded.pixels.dtype == np.uint8
        assert decoded.pixels.flags.c_contiguous
        assert 1 <= height * width <= MAX_PIXELS
        assert channels == 3
        assert 1 <= decoded.orientation <= 8
        return
    assert refusal.reason.replace("_", "").isalpha(), refusal
    assert refusal.message.endswith("."), refusal
    assert refusal.message.isprintable(), refusal
