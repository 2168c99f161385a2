"""A damaged file is refused, or nothing could have shown that it is damaged."""

import contextlib
import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from PIL import Image

from fcn_core.data.mask_coding import read_mask
from fcn_core.decoding import decode
from fcn_core.errors import DecodeError, LabelError
from fcn_core.labels import decode_mask, encode_mask, preset
from tests.fcn_core.decoding.damage import damaged, photo, samples, saved, trial
from tests.fcn_core.decoding.survey import png_chunk, png_file


def refusal(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    return caught.value


def test_nothing_is_labelled_that_another_reader_refuses() -> None:
    outcomes, missed = trial(320)
    assert not [(name, way) for name, way, _ in missed]
    assert sum(outcomes.values()) >= 300


@pytest.mark.long
def test_nothing_is_labelled_that_another_reader_refuses_of_ten_thousand_damages() -> None:
    _, missed = trial(10_000, seed=1)
    assert not [(name, way) for name, way, _ in missed]


@pytest.mark.parametrize("exif", [False, True])
def test_a_png_with_one_bit_flipped_is_never_labelled(exif: bool) -> None:
    """0.1 labelled every one of those that have no EXIF: looking for it swallowed the decoder's error."""
    chunk = Image.Exif()
    chunk[0x0112] = 1
    data = saved(Image.fromarray(photo()), "PNG", **({"exif": chunk} if exif else {}))
    rng = random.Random(0)
    for _ in range(200):
        assert refusal(damaged(data, "flip", rng)).reason in ("damaged", "truncated", "not_an_image")


def test_png_chunks_that_readers_take_in_different_ways_are_refused() -> None:
    whole = png_file(photo()[:, :, :1], 8, 3, png_chunk(b"PLTE", bytes(768)))
    data, end = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    picture = zlib.decompress(whole[data + 8 : end - 4])
    head, content = whole[:data], zlib.compress(picture)
    halves = (png_chunk(b"IDAT", part) for part in (content[:90], content[90:]))
    text, opacities = png_chunk(b"tEXt", b"a\0b"), png_chunk(b"tRNS", bytes(9))
    assert decode(whole).pixels.shape == (96, 128, 3)
    for file, reason in (
        (head + text.join(halves) + whole[end:], "damaged"),
        (head + opacities * 2 + whole[data:], "damaged"),
        (head + png_chunk(b"tRNS", bytes(300)) + whole[data:], "damaged"),
        (head[:33] + whole[data:end] + head[33:] + whole[end:], "damaged"),
        (head[:33] * 2 + head[33:] + whole[data:], "damaged"),
        (head + png_chunk(b"ABCD", b"") + whole[data:], "unsupported_format"),
        (head[:8] + png_chunk(b"CgBI", bytes(4)) + head[8:] + whole[data:], "unsupported_format"),
    ):
        assert refusal(file).reason == reason


def taller_png(rows: int) -> bytes:
    data = bytearray(saved(Image.fromarray(photo()[:40]), "PNG"))
    data[20:24] = struct.pack(">I", rows)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def taller_gif(rows: int) -> bytes:
    data = bytearray(saved(Image.fromarray(photo()[:40]).quantize(256), "GIF"))
    frame = data.index(b",", 13 + 3 * 256)
    data[8:10] = data[frame + 7 : frame + 9] = struct.pack("<H", rows)
    return bytes(data)


def taller_jpeg(rows: int) -> bytes:
    data = bytearray(saved(Image.fromarray(photo()[:40]), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = struct.pack(">H", rows)
    return bytes(data)


def taller_tiff(rows: int) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, photo()[:40], photometric="rgb", compression="zlib", metadata=None)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        places = [file.pages.first.tags[name].valueoffset for name in ("ImageLength", "RowsPerStrip")]
    data = bytearray(buffer.getvalue())
    for place in places:
        data[place : place + 2] = struct.pack("<H", rows)
    return bytes(data)


@pytest.mark.parametrize("made", [taller_png, taller_gif, taller_jpeg, taller_tiff])
def test_data_that_ends_before_the_picture_does_is_an_error(made: Callable[[int], bytes]) -> None:
    """Whole and sound, but for too few rows: a decoder that stops there leaves the rest of the picture black."""
    assert decode(made(40)).pixels.shape == (40, 128, 3)
    assert refusal(made(96)).reason in ("damaged", "truncated")


def test_a_gif_whose_data_goes_on_after_the_picture_is_an_error() -> None:
    """A flipped bit changes how many pixels the codes are for: too few, or too many."""
    whole = saved(Image.fromarray(photo()).quantize(256), "GIF")
    frame = whole.index(b",", 13 + 3 * 256)
    assert decode(whole).pixels.shape == (96, 128, 3)
    lower = whole[: frame + 7] + struct.pack("<H", 95) + whole[frame + 9 :]
    assert refusal(lower).reason == "damaged"


def test_a_jpeg_without_its_end_marker_is_labelled_if_its_pixels_are_all_there() -> None:
    image = Image.fromarray(photo())
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        whole = saved(image, "JPEG", **options)
        expected = decode(whole).pixels
        for end in (whole[:-2], whole[:-1], whole[:-2] + bytes(512), whole + bytes(4096), whole + b"camera 7\n"):
            np.testing.assert_array_equal(decode(end).pixels, expected)
        assert refusal(whole[:-200]).reason == "truncated"


def test_a_progressive_jpeg_cut_between_two_scans_is_truncated() -> None:
    """Every scan that is there is whole; the fine parts of the picture are not there."""
    whole = saved(Image.fromarray(photo()), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        start = whole.rindex(b"\xff\xc4", 0, at) if b"\xff\xc4" in whole[scans[0] : at] else at
        assert refusal(whole[:start]).reason == "truncated"


def test_a_mask_with_one_bit_flipped_is_never_trained_on() -> None:
    labels = preset("voc")
    data = encode_mask(np.random.default_rng(0).integers(0, 21, (60, 80), dtype=np.uint8), labels)
    rng = random.Random(0)
    for _ in range(100):
        hurt = damaged(data, "flip", rng)
        for read in (decode_mask, lambda hurt: read_mask(hurt, labels)):
            with pytest.raises(LabelError):
                read(hurt)


def test_what_a_decoder_prints_stays_off_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    for sample in samples():
        for way in ("flip", "cut", "zero"):
            with contextlib.suppress(DecodeError):
                decode(damaged(sample.data, way, rng))
    assert capfd.readouterr().err == ""
