"""JPEG XL is read, its size is known before its pixels, and a file that is cut is called cut."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError

if not imagecodecs.JPEGXL.available:
    pytest.skip("imagecodecs was built without JPEG XL", allow_module_level=True)

Y, X = np.mgrid[0:96, 0:128]
PICTURE = np.stack([X * 2, Y * 2, X + Y], 2).astype(np.uint8)
WHOLE = imagecodecs.jpegxl_encode(PICTURE, lossless=True)


def container(codestream: bytes) -> bytes:
    """As cameras and converters write it: the codestream in boxes, here in two parts."""
    half = len(codestream) // 2
    parts = [(0).to_bytes(4, "big") + codestream[:half], (0x80000001).to_bytes(4, "big") + codestream[half:]]
    boxes = [(b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), *((b"jxlp", part) for part in parts)]
    return b"".join((len(content) + 8).to_bytes(4, "big") + kind + content for kind, content in boxes)


@pytest.mark.parametrize("data", [WHOLE, container(WHOLE)], ids=["bare", "in boxes"])
def test_a_lossless_picture_is_what_it_was(data: bytes) -> None:
    assert (decode(data).pixels == PICTURE).all()


def test_other_samples_are_scaled_and_transparency_is_white() -> None:
    deep = imagecodecs.jpegxl_encode(PICTURE.astype(np.uint16) * 257, lossless=True)
    assert (decode(deep).pixels == PICTURE).all()
    grey = imagecodecs.jpegxl_encode(np.ascontiguousarray(PICTURE[..., 0]), lossless=True)
    assert (decode(grey).pixels == PICTURE[..., :1]).all()
    clear = imagecodecs.jpegxl_encode(np.dstack([PICTURE, np.zeros_like(PICTURE[..., :1])]), lossless=True)
    assert (decode(clear).pixels == 255).all()


@given(st.integers(1, 700), st.integers(1, 700))
def test_a_size_over_the_limit_is_refused_before_decoding(height: int, width: int) -> None:
    data = imagecodecs.jpegxl_encode(np.zeros((height, width), np.uint8), lossless=True, effort=1)
    assert decode(data, max_pixels=height * width).pixels.shape == (height, width, 3)
    with pytest.raises(DecodeError, match="too_many_pixels"):
        decode(data[:24], max_pixels=height * width - 1)  # whose pixels are not even there


@pytest.mark.parametrize("length", [2, 5, 30, len(WHOLE) - 3])
def test_a_cut_file_is_called_cut(length: int) -> None:
    with pytest.raises(DecodeError) as refused:
        decode(WHOLE[:length])
    assert refused.value.reason == "truncated"


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_pixels_or_one_refusal(data: bytes, boxed: bool) -> None:
    beginning = b"\0\0\0\x0cJXL \r\n\x87\n" if boxed else b"\xff\x0a"
    with pytest.raises(DecodeError):
        decode(beginning + data, max_pixels=10_000)
