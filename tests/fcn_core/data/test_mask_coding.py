"""Masks of every coding come out as indices, and what could be meant otherwise is refused."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fcn_core.data.mask_coding import MaskError, read_mask
from fcn_core.labels import LabelSet, encode_mask, preset
from fcn_core.render import colorize
from tests.fcn_core.data.sbd_files import sbd_file

CAMVID = preset("camvid")
ROOFS = LabelSet(name="roofs", names=("other", "roof"), palette=((0, 0, 0), (255, 0, 0)))
INDICES = arrays(
    np.uint8,
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    elements=st.sampled_from([*range(CAMVID.num_classes), 255]),
)


def png(image: Image.Image, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", **options)
    return sink.getvalue()


def grey(mask: np.ndarray) -> bytes:
    return png(Image.fromarray(mask))


def painted(mask: np.ndarray, palette: list[int]) -> bytes:
    image = Image.fromarray(mask)
    image.putpalette(palette)
    return png(image)


def some_mask() -> np.ndarray:
    return np.array([[0, 1, 2, 3], [4, 8, 10, 255]], np.uint8)


@settings(deadline=None)
@given(INDICES)
def test_all_codings_of_a_mask_are_read_alike(mask):
    colors = png(Image.fromarray(colorize(mask, CAMVID)))
    opaque = png(Image.fromarray(colorize(mask, CAMVID)).convert("RGBA"))
    numbers = encode_mask(mask, CAMVID)
    assert np.array_equal(read_mask(numbers, CAMVID), mask)
    assert np.array_equal(read_mask(numbers, CAMVID, "index"), mask)
    assert np.array_equal(read_mask(grey(mask), CAMVID, "index"), mask)
    for coding in ("auto", "rgb"):
        assert np.array_equal(read_mask(colors, CAMVID, coding), mask)
        assert np.array_equal(read_mask(opaque, CAMVID, coding), mask)
    assert np.array_equal(read_mask(numbers, CAMVID, "rgb"), mask), "a palette is colours, too"


@settings(deadline=None)
@given(INDICES)
def test_shades_of_grey_are_read_however_they_are_stored(mask):
    image, wide = Image.fromarray(mask), Image.fromarray(mask.astype(np.uint16))
    for file in (grey(mask), png(image.convert("RGB")), png(image.convert("LA")), png(wide)):
        assert np.array_equal(read_mask(file, CAMVID, "gray"), mask)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_samples_of_few_bits_are_the_numbers_in_the_file(bits):
    mask = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, axis=0)
    image = Image.fromarray(mask * np.uint8(255 // (2**bits - 1)))
    file = _grey_png(mask, bits)
    assert np.array_equal(np.array(Image.open(io.BytesIO(file)).convert("L")), np.array(image)), "what Pillow sees"
    assert np.array_equal(read_mask(file, CAMVID, "gray"), mask)
    with pytest.raises(MaskError, match="choose mask coding gray"):
        read_mask(file, CAMVID)


def _grey_png(mask: np.ndarray, bits: int) -> bytes:
    """Pillow writes no grey PNG of 2 or 4 bits."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = mask.shape
    unpacked = np.unpackbits(mask[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(unpacked, axis=1))
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_mask_of_sbd_is_read_from_its_matlab_file():
    assert np.array_equal(read_mask(sbd_file(some_mask()), CAMVID), some_mask())


def test_recoding_changes_the_named_numbers_only():
    mask = np.array([[0, 11, 5, 255]], np.uint8)
    assert read_mask(grey(mask), CAMVID, recode={11: 255}).tolist() == [[0, 255, 5, 255]]
    assert read_mask(grey(mask), CAMVID, recode={0: 5, 5: 0}).tolist() == [[5, 11, 0, 255]]


def test_a_palette_that_is_mere_paint_changes_no_index():
    mask = some_mask()
    for palette in (
        preset("voc").flat_palette(),  # what many tools use for any data
        bytes(value for index in range(256) for value in (index,) * 3),
        bytes(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8)),
    ):
        assert np.array_equal(read_mask(painted(mask, list(palette)), CAMVID), mask)


def test_a_colour_picture_packed_into_a_palette_is_not_taken_for_indices():
    colors = Image.fromarray(colorize(some_mask(), CAMVID))
    packed = png(colors.quantize(16))
    with pytest.raises(MaskError, match="choose mask coding rgb if the colours count, index if the numbers do") as info:
        read_mask(packed, CAMVID)
    assert info.value.fault == "other_palette"
    assert np.array_equal(read_mask(packed, CAMVID, "rgb"), some_mask())


def test_an_all_black_picture_is_not_taken_for_the_first_class():
    """Black is void among CamVid's colours, and index 0 is sky."""
    packed = png(Image.new("RGB", (4, 4)).quantize(16))
    with pytest.raises(MaskError) as info:
        read_mask(packed, CAMVID)
    assert info.value.fault == "other_palette"


def test_a_black_and_white_mask_is_refused_by_name():
    mask = np.array([[0, 255], [0, 255]], np.uint8)
    black_and_white = [0] * 765 + [255] * 3
    for file in (grey(mask), painted(mask, black_and_white)):
        with pytest.raises(MaskError, match="black and white") as info:
            read_mask(file, ROOFS)
        assert info.value.fault == "black_and_white"
        assert np.array_equal(read_mask(file, ROOFS, "index"), mask)


def test_one_class_and_ignored_pixels_are_no_black_and_white_mask():
    mask = np.array([[0, 255]], np.uint8)
    assert np.array_equal(read_mask(encode_mask(mask, ROOFS), ROOFS), mask)
    other = ROOFS.model_copy(update={"ignore_index": 254})
    assert np.array_equal(read_mask(grey(mask), other), mask), "255 is illegal there, and said to be so later"


@pytest.mark.parametrize(
    ("file", "coding", "fault", "message"),
    [
        (b"", "auto", "unreadable", "not a PNG"),
        (b"\x89PNG\r\n\x1a\nxxxx", "auto", "unreadable", "damaged PNG"),
        (b"\xff\xd8\xff\xe0", "auto", "unreadable", "is a JPEG"),
        (png(Image.new("RGB", (2, 2))), "index", "colors_for_indices", "colours .PNG mode RGB. where class indices"),
        (png(Image.new("RGB", (2, 2), (1, 2, 3))), "auto", "unknown_colors", r"\(1, 2, 3\) in 4 pixels"),
        (png(Image.new("RGB", (2, 2), (4, 4, 4))), "auto", "unknown_colors", "choose mask coding gray"),
        (png(Image.new("RGB", (2, 2), (1, 2, 3))), "gray", "colors_for_indices", "not shades of grey"),
        (png(Image.new("RGBA", (2, 2), (0, 0, 0, 9))), "auto", "unreadable", "partly transparent"),
        (png(Image.new("I;16", (2, 2), 700)), "gray", "unreadable", "holds 700"),
        (png(Image.new("I;16", (2, 2), 7)), "auto", "unreadable", "mode I;16"),
        (b"MATLAB 5.0 MAT-file", "auto", "unreadable", "MATLAB"),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_do(file, coding, fault, message):
    with pytest.raises(MaskError, match=message) as info:
        read_mask(file, CAMVID, coding)
    assert info.value.fault == fault
