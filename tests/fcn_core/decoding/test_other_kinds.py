"""A file that is no image is refused by what it is, and never called damaged or cut off for that."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError

SVG = b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg" width="9"/>'
S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def refusal(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as refused:
        decode(data)
    return refused.value


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (SVG, "an SVG drawing"),
        (b"\xef\xbb\xbf<svg></svg>", "an SVG drawing"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
        (b"<HTML><title>moved</title></HTML>", "an HTML page"),
        (S3_ERROR, "an XML error"),
        (LFS, "Git LFS pointer"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(40), "AppleDouble"),
        (box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + box(b"mdat", bytes(99)), "a video (MP4"),
        (box(b"ftyp", b"qt  \0\0\2\0") + box(b"moov", bytes(99)), "a video (MP4 or QuickTime)"),
        (b"\x1a\x45\xdf\xa3" + bytes(range(99)), "a video (Matroska"),
        (b"RIFF\x24\0\0\0AVI LIST" + bytes(40), "a video (AVI)"),
        ((b"G" + bytes(187)) * 4, "MPEG transport stream"),
        (box(b"ftyp", b"crx \0\0\0\1crx isom") + bytes(99), "a camera raw file (CR3)"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(99), "a camera raw file (RAF)"),
        (b"IIRO\x08\0\0\0" + bytes(99), "a camera raw file (ORF)"),
        (bytes(128) + b"DICM\2\0\0\0UL\4\0" + bytes(99), "a DICOM file"),
        (b"PK\3\4" + bytes(range(1, 99)), "a ZIP archive"),
        (b'{"message": "Not found"}', "a JSON text"),
        (b"404 page not found\n", "a text"),
        (b"BMW and other cars, a list in plain words\n", "a text"),
        ("Möwen, ein Text".encode(), "a text"),
        (bytes(4096), "nothing but zero bytes"),
    ],
)
def test_what_is_no_image_is_named_by_what_it_is(data: bytes, kind: str) -> None:
    error = refusal(data)
    assert error.reason == "not_an_image"
    assert kind in error.message
    assert "damaged" not in error.message


def test_a_photoshop_file_and_a_raw_tiff_are_formats_that_are_not_read() -> None:
    assert "Photoshop" in refusal(b"8BPS\0\1" + bytes(60)).message
    sink = io.BytesIO()
    tifffile.imwrite(sink, np.zeros((8, 8), np.uint16), photometric="CFA", extratags=[])
    error = refusal(sink.getvalue())
    assert error.reason == "unsupported_format"
    assert "CFA" in error.message.upper() or "COLOR FILTER" in error.message.upper()


def test_an_image_that_is_cut_in_its_header_is_still_called_cut() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (20, 20)).save(sink, "BMP")
    assert "cut off" in refusal(sink.getvalue()[:20]).message


@given(st.binary(max_size=400))
def test_no_bytes_are_called_cut_off_that_do_not_begin_like_an_image(data: bytes) -> None:
    images = (
        b"\xff\xd8",
        b"\x89PNG",
        b"GIF8",
        b"BM",
        b"II",
        b"MM",
        b"\0\0\0\x0cjP",
        b"\xff\x4f",
        b"P",
        b"RIFF",
        b"\xff\n",
        b"\0\0\0\x0cJXL ",
    )
    if data.lstrip().startswith(images) or data[4:8] == b"ftyp":
        return
    with pytest.raises(DecodeError) as refused:
        decode(data)
    assert "cut off" not in refused.value.message
