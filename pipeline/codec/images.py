"""Image bytes to RGB pixels in the pipeline's own words: `decode` returns pixels or raises ImageError, nothing else.

How it is done is in `fcn_core.decoding`, which training uses, too. What no `except` can catch (a crash, a stall) is for
`pipeline.codec.processes`, which runs this in processes of their own.
"""

from fcn_core import decoding
from fcn_core.decoding import MAX_PIXELS, Decoded, Pixels
from fcn_core.errors import DecodeError
from pipeline.errors import ImageError

__all__ = ["MAX_PIXELS", "Decoded", "Pixels", "decode"]


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> Decoded:
    """`fcn_core.decoding.decode`, whose DecodeError comes as an ImageError of the same reason and message."""
    try:
        return decoding.decode(data, max_pixels, max_side)
    except DecodeError as error:
        raise ImageError(error.reason, error.message) from error
