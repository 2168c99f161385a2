"""HEIC and HEIF, with the extra that reads them and without it."""

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fcn_core.decoding import decode, heif
from fcn_core.errors import DecodeError
from tests.hostile.formats import photo, sample
from tests.requires import requires

LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def heic(mode: str, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], **options: object) -> bytes:
    """`pixels`, uint8 or the upper bits of uint16, as a file without loss."""
    requires("pillow_heif", install="'fcn-pipeline[heif]'")
    import pillow_heif

    file = pillow_heif.from_bytes(mode=mode, size=(pixels.shape[1], pixels.shape[0]), data=pixels.tobytes())
    buffer = io.BytesIO()
    file.save(buffer, **LOSSLESS, **options)
    return buffer.getvalue()


def reason(data: bytes, max_pixels: int = 10_000_000) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, max_pixels)
    return caught.value.reason


def brands(major: bytes, *others: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * len(others), b"ftyp", major, 0) + b"".join(others)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (brands(b"heic", b"mif1", b"heic"), True),
        (brands(b"heix"), True),
        (brands(b"mif1", b"heic"), True),
        (brands(b"mif1", b"avif", b"miaf"), False),
        (brands(b"avif", b"mif1"), False),
        (brands(b"isom", b"mp42"), False),
        (brands(b"mif1")[:9], False),
        (b"", False),
    ],
)
def test_a_file_is_heif_by_its_brands_unless_it_is_avif(data: bytes, expected: bool) -> None:
    assert heif.is_heif(data) is expected


def test_without_the_extra_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "pillow_heif", lambda: None)
    with pytest.raises(DecodeError, match=r"pip install 'fcn-pipeline\[heif\]'") as caught:
        decode(brands(b"heic", b"mif1"))
    assert caught.value.reason == "extra_missing"


def test_pixels_are_those_of_the_picture_that_was_saved() -> None:
    np.testing.assert_array_equal(decode(heic("RGB", photo(64, 96))).pixels, photo(64, 96))


def test_ten_bits_are_scaled_and_rounded_as_other_formats_are() -> None:
    ten = np.arange(64 * 80, dtype=np.uint16).reshape(64, 80) % 1024
    expected = (ten.astype(np.uint32) * 255 + 511) // 1023
    pixels = decode(heic("RGB;16", np.repeat((ten << 6)[:, :, np.newaxis], 3, axis=2))).pixels
    np.testing.assert_array_equal(pixels, np.repeat(expected[:, :, np.newaxis], 3, axis=2))


def test_grey_is_three_equal_bands() -> None:
    grey = photo(64, 96)[:, :, 0]
    np.testing.assert_allclose(decode(heic("L", grey)).pixels, np.repeat(grey[:, :, np.newaxis], 3, axis=2), atol=1)


def test_transparent_pixels_are_laid_over_white() -> None:
    alpha = np.zeros((64, 96, 1), np.uint8)
    alpha[:32] = 255
    pixels = decode(heic("RGBA", np.concatenate([photo(64, 96), alpha], axis=2))).pixels
    np.testing.assert_array_equal(pixels[:32], photo(64, 96)[:32])
    assert (pixels[32:] == 255).all()


def test_a_picture_is_turned_once_by_its_container_and_not_again_by_its_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    requires("pillow_heif", install="'fcn-pipeline[heif]'")
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(photo(64, 96))).save(buffer, exif=exif.tobytes(), **LOSSLESS)
    decoded = decode(buffer.getvalue())
    np.testing.assert_array_equal(decoded.pixels, np.rot90(photo(64, 96), -1))
    assert decoded.orientation == 1


def test_a_file_that_was_cut_anywhere_is_called_truncated() -> None:
    data = heic("RGB", photo(64, 96))
    assert {reason(data[:length]) for length in range(40, len(data), 61)} == {"truncated"}


def test_a_picture_over_the_limit_is_refused_from_its_header() -> None:
    assert reason(heic("RGB", photo(64, 96)), 64 * 96 - 1) == "too_many_pixels"


def test_nonsense_in_a_sound_container_is_damage() -> None:
    data = bytearray(heic("RGB", photo(64, 96)))
    at = data.index(b"hvcC") + 30  # the parameters of the picture
    data[at : at + 60] = b"\xaa" * 60
    assert reason(bytes(data)) == "damaged"


def test_avif_goes_on_to_be_read_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "pillow_heif", lambda: None)
    assert decode(sample("AVIF")).pixels.shape == (23, 31, 3)
