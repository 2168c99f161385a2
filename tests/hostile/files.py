"""Thousands of files that claim to be images: cut, damaged, oversized, disguised, endless, odd.

`hostile_files` yields them all; each says what must become of it, where only one outcome is right.
"""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from tests.hostile.formats import encoded, photo, sample

MAX_PIXELS = 50_000_000
"""The limit that the bombs are made for."""

IMAGE_MEMORY = 1 << 26
"""Bytes that decoding one image may take: some files pass the pixel limit and need more than this."""

EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "GIF": "gif",
    "TIFF": "tif",
    "WEBP": "webp",
    "BMP": "bmp",
}
FLIPS_EACH = 60


@dataclass(frozen=True)
class HostileFile:
    """`expected`: "ok" or the one error that is right; None where a decoder may see it either way."""

    name: str
    data: bytes
    expected: str | None = None


def hostile_files(seed: int = 0) -> Iterator[HostileFile]:
    """All of them; the same for the same seed."""
    yield from truncations()
    yield from flips(random.Random(seed))
    yield from bombs()
    yield from disguises()
    yield from endless()
    yield from overgrown_metadata()
    yield from odd_modes()


def truncations() -> Iterator[HostileFile]:
    """Small files of each format, cut at every byte."""
    for kind, extension in EXTENSIONS.items():
        whole = sample(kind, 9, 12)
        yield HostileFile(f"cut/{extension}/whole.{extension}", whole, "ok")
        for end in range(len(whole)):
            expected = "empty_file" if end == 0 else None
            yield HostileFile(f"cut/{extension}/{end:05d}.{extension}", whole[:end], expected)


def flips(rng: random.Random) -> Iterator[HostileFile]:
    """Files with a few bits turned, most of them in the header, where it hurts."""
    for kind, extension in EXTENSIONS.items():
        whole = sample(kind)
        for number in range(FLIPS_EACH):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                place = rng.randrange(len(data) if rng.random() < 0.3 else min(len(data), 80))
                data[place] ^= 1 << rng.randrange(8)
            yield HostileFile(f"flipped/{extension}/{number:03d}.{extension}", bytes(data))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, *chunks: bytes, body: bytes = b"") -> bytes:
    """A PNG of 8-bit RGB with that size in its header, whatever its `body` (compressed) really holds."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(sample("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_claiming(width: int, height: int) -> bytes:
    data = bytearray(sample("TIFF"))
    for tag, value in ((256, width), (257, height)):
        entry = data.index(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0])
        data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


def bombs() -> Iterator[HostileFile]:
    """Small files of huge pictures, wide, high and both, declared only or really there."""
    over = "too_many_pixels"
    for name, (width, height) in {
        "wide": (MAX_PIXELS + 1, 1),
        "high": (1, MAX_PIXELS + 1),
        "square": (1 << 16, 1 << 16),
        "huge": ((1 << 31) - 1, (1 << 31) - 1),
        "narrow": (128, 659_463),
    }.items():
        yield HostileFile(f"bombs/{name}.png", png_claiming(width, height), over)
        yield HostileFile(f"bombs/{name}.tif", tiff_claiming(width, height), over)
        bmp = bytearray(sample("BMP"))
        bmp[18:26] = struct.pack("<II", width, height)
        yield HostileFile(f"bombs/{name}.bmp", bytes(bmp), over)
    for name, (width, height) in {"wide": (65535, 800), "high": (800, 65535), "square": (65535, 65535)}.items():
        yield HostileFile(f"bombs/{name}.jpg", jpeg_claiming(width, height), over)
        gif = bytearray(sample("GIF"))
        gif[6:10] = struct.pack("<HH", width, height)
        yield HostileFile(f"bombs/{name}.gif", bytes(gif), over)
    # Real ones: every pixel is there. The second passes the limit and asks for more memory than there is.
    for name, side, expected in (("real", 7100, over), ("memory", 6900, "out_of_memory")):
        yield HostileFile(
            f"bombs/{name}.png", png_claiming(side, side, body=zeros_packed(side * (1 + 3 * side))), expected
        )
    # A small picture, and a body that unpacks to a gigabyte: what is too much for the picture is never unpacked.
    yield HostileFile("bombs/body.png", png_claiming(8, 8, body=zeros_packed(1 << 30)))
    text = zeros_packed(100 << 20)
    yield HostileFile("bombs/text.png", png_claiming(8, 8, png_chunk(b"zTXt", b"Comment\0\0" + text)))
    yield HostileFile("bombs/profile.png", png_claiming(8, 8, png_chunk(b"iCCP", b"icc\0\0" + text)))


def zeros_packed(length: int) -> bytes:
    """At least so many zero bytes, deflated: one block again and again, without the checksum at the end."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (length >> 20)


def zipped(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(name, content)
    return sink.getvalue()


def disguises() -> Iterator[HostileFile]:
    """Wrong extensions, other kinds of file, and files that are two things at once."""
    jpeg, png, gif = sample("JPEG"), sample("PNG"), sample("GIF")
    for extension in EXTENSIONS.values():
        for kind, other in EXTENSIONS.items():
            yield HostileFile(f"disguised/{other}-as.{extension}", sample(kind), "ok")
        eps = io.BytesIO()
        Image.fromarray(photo()).save(eps, "EPS")
        yield HostileFile(f"disguised/eps-as.{extension}", eps.getvalue(), "unsupported_format")
        pdf = io.BytesIO()
        Image.fromarray(photo()).save(pdf, "PDF")
        yield HostileFile(f"disguised/pdf-as.{extension}", pdf.getvalue(), "unsupported_format")
        for name, content in {
            "html": b"<html><body>404 Not Found</body></html>",
            "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            "zip": zipped("a.jpg", jpeg),
            "pickle": b"\x80\x04\x95\x1a\x00\x00\x00cos\nsystem\n(S'true'\ntR.",
            "script": b"#!/bin/sh\necho hello\n",
            "program": b"\x7fELF\x02\x01\x01" + bytes(200),
        }.items():
            yield HostileFile(f"disguised/{name}-as.{extension}", content, "not_an_image")
        for length in (1, 2, 8, 100, 4096, 1 << 20):
            yield HostileFile(f"disguised/zeros-{length}.{extension}", bytes(length), "not_an_image")
        for length in (1, 16, 5000):
            noise = b"\x01" + random.Random(length).randbytes(length)
            yield HostileFile(f"disguised/noise-{length}.{extension}", noise, "not_an_image")
    yield HostileFile("polyglot/jpeg-and-zip.jpg", jpeg + zipped("a.jpg", jpeg), "ok")
    yield HostileFile("polyglot/gif-and-jar.gif", gif + zipped("A.class", b"\xca\xfe\xba\xbe"), "ok")
    yield HostileFile("polyglot/png-and-html.png", png + b"<script>alert(1)</script>", "ok")
    yield HostileFile("polyglot/jpeg-and-png.jpg", jpeg + png, "ok")
    yield HostileFile("polyglot/png-and-jpeg.png", png + jpeg, "ok")
    yield HostileFile("polyglot/pdf-then-jpeg.jpg", b"%PDF-1.4\n" + jpeg, "unsupported_format")
    yield HostileFile("polyglot/postscript-then-jpeg.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n" + jpeg, "unsupported_format")
    yield HostileFile("polyglot/script.gif", b"GIF89a=1;alert(1);//" + gif)
    yield HostileFile("polyglot/comment.jpg", jpeg[:2] + b"\xff\xfe\x00\x1b<?php system('id'); ?>  " + jpeg[2:])
    yield HostileFile("polyglot/bitmap-and-code.bmp", b"BM=1;/*" + sample("BMP")[7:] + b"*/alert(1)")


def endless() -> Iterator[HostileFile]:
    """Animations and streams that go on and on; only the first picture is wanted."""
    frames = [Image.fromarray(photo() // (1 + number % 3)) for number in range(500)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0)
    yield HostileFile("endless/looping.gif", gif, "ok")
    yield HostileFile("endless/no-end.gif", gif[:-1], "ok")
    start = bytes(sample("GIF"))
    picture = start.index(b",", 13 + 3 * (2 << (start[10] & 7)))
    yield HostileFile("endless/blocks.gif", start[: picture + 11] + (b"\xff" + bytes(255)) * 20_000)
    yield HostileFile("endless/comments.gif", start[:picture] + (b"\x21\xfe\xff" + b"x" * 255 + b"\0") * 20_000)
    yield HostileFile("endless/apng.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:60]), "ok")
    tiff = bytearray(sample("TIFF"))
    directory = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, directory)[0]
    struct.pack_into("<I", tiff, directory + 2 + 12 * count, directory)  # the next page is this page
    yield HostileFile("endless/circle.tif", bytes(tiff))
    yield HostileFile("endless/scans.jpg", sample("JPEG")[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 50_000)
    yield HostileFile("endless/markers.jpg", b"\xff\xd8" + b"\xff\xe1\x00\x02" * 200_000 + sample("JPEG")[2:])


def overgrown_metadata() -> Iterator[HostileFile]:
    """ICC profiles and EXIF that are long, deep, or nonsense."""
    jpeg, image = sample("JPEG"), Image.fromarray(photo())
    profile = random.Random(1).randbytes(4 << 20)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        extension = EXTENSIONS[kind]
        yield HostileFile(f"metadata/nonsense.{extension}", encoded(image, kind, icc_profile=b"not a profile"), "ok")
        yield HostileFile(f"metadata/long-profile.{extension}", encoded(image, kind, icc_profile=profile), "ok")
    # Directories in directories, the last one naming the first: a reader that follows them goes round for ever.
    depth = 2000
    exif = bytearray(b"II*\0\x08\0\0\0")
    for level in range(depth):
        below = 8 + 18 * (level + 1) if level + 1 < depth else 8
        exif += struct.pack("<HHHIII", 1, 0x8769, 4, 1, below, below)
    block = b"Exif\0\0" + bytes(exif)
    yield HostileFile(
        "metadata/deep.jpg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    )
    yield HostileFile("metadata/deep.png", encoded(image, "PNG", exif=bytes(exif)))
    # A value that claims four billion entries, and an orientation that is text.
    for name, entry in {
        "long-value": struct.pack("<HHII", 0x010E, 2, 0xFFFFFFFF, 26),
        "text-orientation": struct.pack("<HHI4s", 0x0112, 2, 4, b"up\0\0"),
        "many-orientations": struct.pack("<HHII", 0x0112, 3, 1000, 8),
    }.items():
        tags = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4)
        yield HostileFile(f"metadata/{name}.jpg", encoded(image, "JPEG", exif=b"Exif\0\0" + tags), "ok")
        yield HostileFile(f"metadata/{name}.png", encoded(image, "PNG", exif=tags), "ok")


def odd_modes() -> Iterator[HostileFile]:
    """Sound files of pixels that are not 8-bit RGB."""
    image, grey = Image.fromarray(photo()), photo()[:, :, 0]
    yield HostileFile("odd/16-bit.png", encoded(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), "ok")
    yield HostileFile("odd/16-bit.tif", encoded(Image.fromarray(grey.astype(np.uint16) * 257), "TIFF"), "ok")
    yield HostileFile("odd/32-bit.tif", encoded(Image.fromarray(grey.astype(np.int32) * 70_000), "TIFF"), "ok")
    yield HostileFile("odd/float.tif", encoded(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"), "ok")
    wild = np.full_like(grey, np.nan, np.float32)
    wild[0, :3] = (np.inf, -np.inf, 3e38)
    yield HostileFile("odd/nan.tif", encoded(Image.fromarray(wild), "TIFF"), "ok")
    yield HostileFile("odd/1-bit.png", encoded(Image.fromarray(grey > 90), "PNG"), "ok")
    yield HostileFile("odd/1-bit.tif", encoded(Image.fromarray(grey > 90), "TIFF", compression="group4"), "ok")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(image, to_lab)
    assert lab is not None
    yield HostileFile("odd/lab.tif", encoded(lab, "TIFF"), "ok")
    cmyk = encoded(image.convert("CMYK"), "JPEG")
    assert b"Adobe" in cmyk
    yield HostileFile("odd/cmyk-adobe.jpg", cmyk, "ok")
    yield HostileFile("odd/cmyk.tif", encoded(image.convert("CMYK"), "TIFF"), "ok")
    marker = cmyk.index(b"Adobe")
    yield HostileFile("odd/cmyk-unmarked.jpg", cmyk[:marker] + b"Abode" + cmyk[marker + 5 :], "ok")
    yield HostileFile("odd/adobe-on-rgb.jpg", sample("JPEG")[:2] + _ADOBE_CMYK + sample("JPEG")[2:])
    for mode in ("RGBA", "LA", "P", "PA"):
        kind = "TIFF" if mode == "PA" else "PNG"
        yield HostileFile(f"odd/{mode.lower()}.{EXTENSIONS[kind]}", encoded(image.convert(mode), kind), "ok")
    yield HostileFile("odd/ycbcr.tif", encoded(image.convert("YCbCr"), "TIFF"), "ok")
    yield HostileFile("odd/progressive.jpg", encoded(image, "JPEG", progressive=True), "ok")
    yield HostileFile("odd/interlaced.gif", encoded(image.convert("P"), "GIF", interlace=1), "ok")
    yield HostileFile("odd/one-pixel.png", encoded(Image.new("RGB", (1, 1)), "PNG"), "ok")


# An APP14 segment that says "these four channels are inverted CMYK (YCCK)" to a reader of three.
_ADOBE_CMYK = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x02"
