"""TIFF files that are made to take memory or time, or whose directories lie."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError

LIMIT = 50_000_000
MOST_BYTES = 100 << 20


def directory(entries: dict[int, tuple[int, int, int]], following: int = 0) -> bytes:
    """`entries`: type, count and value (or its place) by tag."""
    rows = b"".join(struct.pack("<HHII", tag, *entries[tag]) for tag in sorted(entries))
    return struct.pack("<H", len(entries)) + rows + struct.pack("<I", following)


def grey(width: int = 8, height: int = 8, **changes: tuple[int, int, int]) -> bytes:
    """A grey TIFF of one strip, with entries changed: t256=(type, count, value)."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 400),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, min(width * height, 1 << 31)),
    }
    entries |= {int(name[1:]): entry for name, entry in changes.items()}
    return (b"II*\0" + struct.pack("<I", 8) + directory(entries)).ljust(400, b"\0") + bytes(range(64))


def refusal(data: bytes) -> DecodeError:
    """The refusal, which must have taken little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as caught:
            decode(data, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES + len(data)
    finally:
        tracemalloc.stop()
    return caught.value


def test_the_file_that_is_changed_here_is_sound() -> None:
    np.testing.assert_array_equal(decode(grey()).pixels[:, :, 0], np.arange(64).reshape(8, 8))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (grey(1 << 31, 1 << 31), "too_many_pixels"),
        (grey(0, 8), "damaged"),
        (grey(1, 40_000_000, t278=(4, 1, 1)), "unsupported_format"),
        (grey(t277=(3, 1, 65535)), "truncated"),
        (grey(4000, 4000, t277=(3, 1, 60_000), t258=(3, 1, 16)), "unsupported_format"),
        (grey(t322=(4, 1, 1 << 30), t323=(4, 1, 1 << 20), t324=(4, 1, 400), t325=(4, 1, 64)), "unsupported_format"),
        (grey(t322=(4, 1, 0), t323=(4, 1, 16), t324=(4, 1, 400), t325=(4, 1, 64)), "damaged"),
        (grey(t273=(4, 1 << 30, 400)), "truncated"),
        (grey(t273=(4, 1, 0)), "damaged"),
        (grey(t278=(4, 1, 4)), "damaged"),
        (grey(t279=(4, 1, 20)), "truncated"),
        (grey(t279=(4, 1, 0)), "damaged"),
        (grey(t258=(2, 1, 8)), "damaged"),
        (grey(t262=(3, 1, 77)), "unsupported_format"),
        (grey(t259=(3, 1, 50002)), "unsupported_format"),
        (grey(t259=(3, 1, 9999)), "unsupported_format"),
        (b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 65535) + bytes(100), "damaged"),
        (b"II*\0" + struct.pack("<I", 1 << 30) + bytes(100), "truncated"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 1 << 62) + bytes(100), "truncated"),
    ],
)
def test_a_header_that_lies_is_refused_in_little_memory(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


def test_a_missing_tag_is_not_guessed() -> None:
    whole = grey()
    for tag in (256, 257, 262):
        at = whole.index(struct.pack("<H", tag), 10)
        assert refusal(whole[:at] + struct.pack("<H", 700) + whole[at + 2 :]).reason == "damaged"


def test_directories_that_go_round_in_circles_end() -> None:
    thumbnail = {254: (4, 1, 1), 256: (4, 1, 8), 257: (4, 1, 8), 262: (3, 1, 1)}
    file = grey(t254=(4, 1, 1))
    second = len(file)
    last = 8 + 2 + 12 * struct.unpack_from("<H", file, 8)[0]
    chained = file[:last] + struct.pack("<I", second) + file[last + 4 :] + directory(thumbnail, following=8)
    np.testing.assert_array_equal(decode(chained).pixels[:, :, 0], np.arange(64).reshape(8, 8))


def test_a_million_directories_are_not_all_read() -> None:
    thumbnail = {254: (4, 1, 1), 256: (4, 1, 8), 257: (4, 1, 8), 262: (3, 1, 1)}
    length = len(directory(thumbnail))
    chain = b"".join(directory(thumbnail, following=8 + length * (index + 1)) for index in range(20_000))
    assert refusal(b"II*\0" + struct.pack("<I", 8) + chain).reason == "damaged"


@pytest.mark.parametrize("compression", ["png", "jpeg2000", "webp", "jpeg", "lerc"])
def test_a_tile_that_declares_far_more_than_it_is_for_is_refused(compression: str) -> None:
    """A small page whose one strip is a large picture of its own."""
    buffer = io.BytesIO()
    large = np.zeros((3000, 3000, 3), np.uint8)
    tifffile.imwrite(buffer, large, photometric="rgb", compression=compression, metadata=None, rowsperstrip=3000)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            place = file.pages.first.tags[name].valueoffset
            data[place : place + 2] = struct.pack("<H", 16)
    assert refusal(bytes(data)).reason == "damaged"
