"""Image bytes to pixels: right for what is an image, a DecodeError for everything else."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from fcn_core.decoding import decode, heif, jpeg, png
from fcn_core.errors import DecodeError
from tests.hostile.formats import KINDS, encoded, photo, sample

# What Pillow remarks about damaged files is not for us to hear.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LIMIT = 1_000_000
REASONS = {
    *("empty_file", "not_an_image", "unsupported_format", "truncated", "damaged", "too_many_pixels"),
    "out_of_memory",
}
LOSSLESS = ["PNG", "BMP", "TIFF", "PPM", "GIF"]


def oriented(width: int, height: int, orientation: int) -> bytes:
    """A JPEG of a smooth picture that asks to be turned."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def reason(data: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, max_pixels)
    assert caught.value.message.endswith(".")
    assert "\n" not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_decodes_to_contiguous_rgb(kind: str) -> None:
    decoded = decode(sample(kind), LIMIT)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.shape == (23, 31, 3)
    assert decoded.orientation == 1
    tolerance = 0 if kind in ("PNG", "BMP", "TIFF", "PPM", "WEBP") else 40
    assert np.abs(decoded.pixels.astype(int) - photo()).max() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_come_in_their_displayed_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo()), kind, exif=exif)
    decoded = decode(data, LIMIT)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert decoded.orientation == orientation
    assert decoded.pixels.shape == ((23, 31, 3) if orientation < 5 else (31, 23, 3))
    np.testing.assert_array_equal(decoded.pixels, expected)


@pytest.mark.parametrize("stored", [0, 9, 255])
def test_an_orientation_that_does_not_exist_counts_as_none(stored: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = stored
    assert decode(encoded(Image.fromarray(photo()), "PNG", exif=exif), LIMIT).orientation == 1


def test_broken_exif_does_not_spoil_the_picture() -> None:
    data = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert decode(data, LIMIT).pixels.shape == (23, 31, 3)


def test_grey_and_bilevel_images_become_grey_rgb() -> None:
    grey = photo()[:, :, 0]
    pixels = decode(encoded(Image.fromarray(grey), "PNG"), LIMIT).pixels
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, 2))
    bits = Image.fromarray(grey > 90)
    assert bits.mode == "1"
    pixels = decode(encoded(bits, "PNG"), LIMIT).pixels
    np.testing.assert_array_equal(pixels[:, :, 0], np.where(grey > 90, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    alpha = np.zeros((23, 31), np.uint8)
    alpha[:, 10:20] = 128
    alpha[:, 20:] = 255
    image.putalpha(Image.fromarray(alpha))
    pixels = decode(encoded(image, "PNG"), LIMIT).pixels.astype(int)
    solid = np.asarray(Image.fromarray(photo()).convert(mode).convert("RGB")).astype(int)
    assert (pixels[:, :10] == 255).all()
    np.testing.assert_array_equal(pixels[:, 20:], solid[:, 20:])
    assert np.abs(pixels[:, 10:20] - (solid[:, 10:20] * 128 + 255 * 127) / 255).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_are_looked_up_and_their_transparent_entry_is_white(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").copy()
    paletted = Image.new("P", image.size)
    paletted.putdata([0, 1, 2, 1])
    paletted.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    pixels = decode(encoded(paletted, kind), LIMIT).pixels
    assert pixels.tolist() == [[[200, 10, 10], [10, 200, 10]], [[10, 10, 200], [10, 200, 10]]]
    pixels = decode(encoded(paletted, kind, transparency=1), LIMIT).pixels
    assert pixels.tolist() == [[[200, 10, 10], [255, 255, 255]], [[10, 10, 200], [255, 255, 255]]]


def test_cmyk_jpegs_keep_their_colours() -> None:
    """Adobe stores them inverted; white paper must not come out black."""
    cmyk = Image.fromarray(photo()).convert("CMYK")
    pixels = decode(encoded(cmyk, "JPEG", quality=95), LIMIT).pixels
    assert np.abs(pixels.astype(int) - photo()).max() < 40
    white = decode(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), LIMIT).pixels
    assert (white > 250).all()


def test_lab_and_ycbcr_become_rgb() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(photo()), to_lab)
    assert lab is not None
    assert np.abs(decode(encoded(lab, "TIFF"), LIMIT).pixels.astype(int) - photo()).mean() < 3
    ycbcr = Image.fromarray(photo()).convert("YCbCr")
    assert np.abs(decode(encoded(ycbcr, "TIFF"), LIMIT).pixels.astype(int) - photo()).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_to_8_bits(kind: str) -> None:
    values = np.array([[0, 128, 129, 257], [385, 386, 32768, 65535]], np.uint16)
    pixels = decode(encoded(Image.fromarray(values), kind), LIMIT).pixels
    assert pixels[:, :, 0].tolist() == [[0, 0, 1, 1], [1, 2, 128, 255]]
    assert (pixels == pixels[:, :, :1]).all()


def test_big_endian_16_bit_grey_is_scaled_alike() -> None:
    image = Image.frombytes("I;16B", (2, 1), np.array([257, 65535], ">u2").tobytes())
    assert decode(encoded(image, "TIFF"), LIMIT).pixels[0, :, 0].tolist() == [1, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 70_000, 140_000], [0, 128, 255]),
        ([-5, -5, -5], [0, 0, 0]),
    ],
)
def test_32_bit_integers_are_16_bit_values_or_stretched(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert decode(encoded(image, "TIFF"), LIMIT).pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 17.4, 255], [0, 17, 255]),
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 500, 1000], [0, 128, 255]),
        ([float("nan"), 0.5, 1], [128, 128, 255]),
        ([float("-inf"), 0, float("inf")], [0, 0, 0]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-3.4e38, 0, 3.4e38], [0, 128, 255]),
    ],
)
def test_floats_follow_the_documented_rule(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert decode(encoded(image, "TIFF"), LIMIT).pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in [(200, 0, 0), (0, 200, 0), (0, 0, 200)]]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode(data, LIMIT).pixels[3, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_one_pixel_is_an_image(kind: str) -> None:
    pixels = decode(encoded(Image.new("RGB", (1, 1), (10, 20, 30)), kind), LIMIT).pixels
    assert pixels.tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixel_limit_is_exact(kind: str) -> None:
    assert decode(sample(kind), 23 * 31).pixels.shape == (23, 31, 3)
    assert reason(sample(kind), 23 * 31 - 1) == "too_many_pixels"


def test_a_huge_declared_size_is_refused_before_anything_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 128, 659_463, 8, 2, 0, 0, 0)
    huge = bytearray(sample("PNG"))
    huge[16:29] = header
    huge[29:33] = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    assert reason(bytes(huge), 10_000_000) == "too_many_pixels"


def test_a_row_longer_than_the_png_decoder_takes_is_not_called_damaged() -> None:
    longest = png.LONGEST_SIDE
    assert decode(encoded(Image.new("L", (longest, 1)), "PNG")).pixels.shape == (1, longest, 3)
    for size in ((longest + 1, 1), (1, longest + 1)):
        with pytest.raises(
            DecodeError, match=f"PNG of {size[0]}x{size[1]} pixels; its decoder reads 1,000,000"
        ) as caught:
            decode(encoded(Image.new("L", size), "PNG"))
        assert caught.value.reason == "unsupported_format"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_in_half_is_an_error(kind: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), kind)
    assert reason(data[: len(data) // 2]) in ("truncated", "damaged")


def test_a_cut_jpeg_is_called_truncated() -> None:
    assert reason(sample("JPEG")[:-50]) == "truncated"


HEIC_WITHOUT_PIXELS = "damaged" if heif.is_installed() else "extra_missing"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty_file"),
        (b"\0" * 100, "not_an_image"),
        (b"<html><body>404</body></html>", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", HEIC_WITHOUT_PIXELS),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, expected: str) -> None:
    assert reason(data) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("before", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf\n \t"])
def test_blank_lines_before_an_image_are_passed_over(kind: str, before: bytes) -> None:
    data = sample(kind)
    assert np.array_equal(decode(before + data, LIMIT).pixels, decode(data, LIMIT).pixels)
    assert reason((before + data)[: len(data) // 2]) == "truncated"


def test_blank_lines_before_anything_else_are_no_image() -> None:
    for kind in ("BMP", "TIFF", "PPM"):
        assert reason(b"\n" + sample(kind)) == "not_an_image"


def test_postscript_never_reaches_ghostscript() -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "EPS")
    assert reason(buffer.getvalue()) == "unsupported_format"


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0, 1))
def test_any_truncation_is_an_image_or_a_decode_error(kind: str, share: float) -> None:
    data = sample(kind)
    _decodes_or_says_why(data[: int(len(data) * share)])


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255), st.booleans()), min_size=1, max_size=8),
)
def test_any_damage_is_an_image_or_a_decode_error(kind: str, edits: list[tuple[float, int, bool]]) -> None:
    data = bytearray(sample(kind))
    for place, value, in_header in edits:
        data[int(place * min(len(data), 80 if in_header else len(data)))] = value
    _decodes_or_says_why(bytes(data))


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"II*\0\x08\0\0\0", b"P6 ", b"GIF89a", b"BM", b"\0\0\0\x0cjP  "]),
)
def test_any_bytes_are_an_image_or_a_decode_error(noise: bytes, magic: bytes) -> None:
    _decodes_or_says_why(magic + noise)


def _decodes_or_says_why(data: bytes) -> None:
    reason = None
    try:
        height, width, _ = decode(data, LIMIT).pixels.shape
    except DecodeError as error:
        reason = error.reason
    if reason is None:
        assert 1 <= height * width <= LIMIT
    else:
        assert reason in REASONS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_the_picture_whatever_way_it_lies(orientation: int) -> None:
    data = oriented(401, 233, orientation)
    full = decode(data, LIMIT).pixels
    reduced = decode(data, LIMIT, max_side=100)
    assert reduced.full_size == full.shape[:2]
    assert max(reduced.pixels.shape) == 100
    assert reduced.pixels.flags.c_contiguous
    height, width, _ = reduced.pixels.shape
    expected = np.asarray(Image.fromarray(full).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(expected - reduced.pixels).mean() < 6  # of pictures turned otherwise it is over 40


@pytest.mark.parametrize("kind", KINDS)
def test_reduction_leaves_small_pictures_alone_and_large_ones_in_proportion(kind: str) -> None:
    data = sample(kind)
    full = decode(data, LIMIT)
    side = max(full.pixels.shape[:2])
    alone = decode(data, LIMIT, max_side=side)
    np.testing.assert_array_equal(alone.pixels, full.pixels)
    assert alone.full_size is None
    reduced = decode(data, LIMIT, max_side=side - 1)
    assert reduced.full_size == full.pixels.shape[:2]
    assert max(reduced.pixels.shape[:2]) == side - 1
    assert reduced.orientation == full.orientation


def test_a_picture_too_large_is_refused_before_it_is_reduced() -> None:
    with pytest.raises(DecodeError, match="the limit is"):
        decode(oriented(401, 233, 1), 401 * 233 - 1, max_side=50)


def lossless_jpeg() -> bytes:
    grey = np.random.default_rng(0).integers(0, 256, (190, 260), dtype=np.uint8)
    return bytes(imagecodecs.ljpeg_encode(grey, bitspersample=8))


def test_a_lossless_jpeg_is_reduced_after_it_is_decoded() -> None:
    """libjpeg-turbo reduces none, and wrote beyond the memory of the smaller picture that it was asked for."""
    whole = decode(lossless_jpeg(), LIMIT).pixels
    reduced = decode(lossless_jpeg(), LIMIT, max_side=20)
    assert reduced.full_size == (190, 260)
    np.testing.assert_array_equal(
        reduced.pixels, np.asarray(Image.fromarray(whole).resize((20, 15), Image.Resampling.BILINEAR))
    )


def test_a_lossless_frame_that_another_one_hides_is_not_reduced_while_it_is_decoded() -> None:
    """libjpeg passes over the first two bytes of what looks like a segment here, and finds the frame in it."""
    body = lossless_jpeg()[2:]
    baseline = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 190, 260, 1) + b"\1\x11\0"
    hidden = b"\xff\xd8\xff\0" + struct.pack(">H", 2 + len(body)) + body + baseline
    assert len(body) < 1 << 16
    assert jpeg._frame(hidden) == (None, None)
    with pytest.raises(DecodeError):
        decode(hidden, LIMIT, max_side=20)
