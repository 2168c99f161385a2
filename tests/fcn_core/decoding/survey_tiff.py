"""Sound TIFF files in every variant that tifffile and Pillow can write, and in some that only the specification knows,
each with what must come out; see `survey`.
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from tests.fcn_core.decoding.survey import (
    ALPHA,
    GREY,
    HEIGHT,
    PICTURE,
    WIDTH,
    Array,
    Variant,
    by_pillow,
    by_rule,
    over_white,
    rgb,
    saved,
)


def tiff(samples: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ascontiguousarray(samples), metadata=None, **options)
    return buffer.getvalue()


def tiff_samples() -> Iterator[Variant]:
    """Every type of number, grey and in colour, in both byte orders."""
    for order in "<>":
        for dtype in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
            for name, source in (("grey", GREY), ("rgb", PICTURE)):
                photometric = "rgb" if source.ndim == 3 else "minisblack"
                kind = np.dtype(dtype)
                if kind.kind == "f":
                    ranges = {"unit": source / 255, "bytes": source, "wide": source * 17.5 - 900}
                else:
                    most, low = np.iinfo(kind).max, np.iinfo(kind).min
                    ranges = {"whole": source * ((int(most) - int(low)) / 255) + int(low)}
                    if kind.itemsize > 1:
                        ranges["small"] = source.astype(np.float64)
                for spread, values in ranges.items():
                    if kind.kind != "f":
                        values = np.clip(values, np.iinfo(kind).min, np.nextafter(float(np.iinfo(kind).max), 0))
                    array = values.astype(kind)
                    if dtype == "u1":
                        shown = array
                    elif dtype == "u2":
                        shown = np.floor(array / 257 + 0.5).astype(np.uint8)
                    else:
                        shown = by_rule(array)
                    data = tiff(array, photometric=photometric, byteorder=order)
                    expected = rgb(shown) if shown.ndim == 2 else shown
                    yield Variant(f"tiff {name} {dtype} {spread} {order}", data, expected, 1)
    yield Variant("tiff complex", tiff(GREY.astype(np.complex64), photometric="minisblack"), refused="complex")


def tiff_colors() -> Iterator[Variant]:
    """Photometric interpretations, alpha, extra bands, planes."""
    for bits, factor in ((8, 1), (16, 257)):
        kind = np.uint8 if bits == 8 else np.uint16
        wide, grey, alpha = (part.astype(kind) * kind(factor) for part in (PICTURE, GREY, ALPHA))
        premultiplied = np.floor(wide * (ALPHA[:, :, None] / 255) + 0.5).astype(kind)
        yield Variant(f"tiff miniswhite {bits}", tiff(grey, photometric="miniswhite"), 255 - rgb(GREY))
        inks = np.dstack([255 - PICTURE, np.zeros_like(GREY)]).astype(kind) * kind(factor)
        yield Variant(f"tiff cmyk {bits}", tiff(inks, photometric="separated"), PICTURE, 1)
        data = tiff(inks, photometric="separated", extratags=[(332, 3, 1, 2, True)])
        yield Variant(f"tiff other inks {bits}", data, refused="inks")
        for planar in ("contig", "separate"):
            for name, arrays, options, expected in (
                ("rgb", [wide], {"photometric": "rgb"}, PICTURE),
                ("rgb minisblack", [wide], {"photometric": "minisblack"}, PICTURE),
                ("rgb nir", [wide, grey], {"photometric": "rgb", "extrasamples": [0]}, PICTURE),
                ("4 bands", [wide, grey], {"photometric": "minisblack"}, PICTURE),
                ("5 bands", [wide, grey, grey], {"photometric": "minisblack"}, PICTURE),
                ("8 bands", [wide, wide, grey, grey], {"photometric": "minisblack"}, PICTURE),
                ("2 bands", [grey, alpha], {"photometric": "minisblack", "extrasamples": [0]}, rgb(GREY)),
                (
                    "grey alpha",
                    [grey, alpha],
                    {"photometric": "minisblack", "extrasamples": [2]},
                    over_white(rgb(GREY), ALPHA),
                ),
                (
                    "rgb alpha",
                    [wide, alpha],
                    {"photometric": "rgb", "extrasamples": [2]},
                    over_white(PICTURE, ALPHA),
                ),
                (
                    "rgb associated alpha",
                    [premultiplied, alpha],
                    {"photometric": "rgb", "extrasamples": [1]},
                    over_white(PICTURE, ALPHA),
                ),
                (
                    "rgb nir alpha",
                    [wide, grey, alpha],
                    {"photometric": "rgb", "extrasamples": [0, 2]},
                    over_white(PICTURE, ALPHA),
                ),
            ):
                samples = np.dstack(arrays)
                if planar == "separate":
                    samples = np.moveaxis(samples, 2, 0)
                data = tiff(samples, planarconfig=planar, **options)
                yield Variant(f"tiff {name} {bits} {planar}", data, expected, 1)
    palette = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16) * 257
    shown = (palette // 257).T[GREY].astype(np.uint8)
    yield Variant("tiff palette", tiff(GREY, photometric="palette", colormap=palette), shown)
    yield Variant("tiff palette of bytes", tiff(GREY, photometric="palette", colormap=palette // 257), shown)
    indexed = Image.fromarray(PICTURE).quantize(16)
    yield Variant("tiff palette by Pillow", saved(indexed, "TIFF"), np.asarray(indexed.convert("RGB")))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(PICTURE), to_lab)
    assert lab is not None
    yield Variant("tiff cielab", saved(lab, "TIFF"), np.asarray(lab.convert("RGB")))
    whole = tiff(np.asarray(lab), photometric="cielab", compression="jpeg")
    yield Variant("tiff cielab jpeg", whole, refused="cielab, jpeg")
    raw = tiff(GREY, photometric=32803, extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)])
    yield Variant("tiff cfa", raw, refused="camera raw")


def tiff_opacity() -> Iterator[Variant]:
    """Opacity in numbers of which the file does not say what is white."""
    opaque = np.full_like(GREY, 255)
    for dtype in ("u4", "u8", "f4", "f8"):
        for name, alpha in (("opaque", opaque), ("from nothing to all", ALPHA), ("half", opaque // 2)):
            for kind in (2, 1):
                bands = np.dstack([PICTURE, alpha])
                array = bands.astype(dtype)
                array = array / 255 if dtype[0] == "f" else array * (np.iinfo(dtype).max // 255)
                data = tiff(array, photometric="rgb", extrasamples=[kind])
                expected = over_white(PICTURE, alpha)
                refused = None
                if kind == 1:
                    expected = np.minimum(PICTURE + (255 - alpha[:, :, None].astype(int)), 255).astype(np.uint8)
                    refused = "associated opacity" if dtype[0] == "u" else None
                yield Variant(f"tiff rgb {dtype} {name} {kind}", data, None if refused else expected, 1, refused)
    values = np.dstack([PICTURE, opaque]).astype(np.int16) * 128
    yield Variant("tiff rgb i2 opacity", tiff(values, photometric="rgb", extrasamples=[2]), refused="opacity")
    yield Variant("tiff rgb 1 bit", tiff(PICTURE > 90, photometric="rgb"), refused="3 samples a pixel")


def tiff_ycbcr() -> Iterator[Variant]:
    """Luma and two colours, of full and of lower resolution, with the tags that say what they mean."""
    ycbcr = np.asarray(Image.fromarray(PICTURE).convert("YCbCr"))
    plain = saved(Image.fromarray(PICTURE).convert("YCbCr"), "TIFF")
    yield Variant("tiff ycbcr", plain, np.asarray(Image.fromarray(ycbcr, "YCbCr").convert("RGB")), 1)
    planes = tiff(np.moveaxis(ycbcr, 2, 0), photometric="ycbcr", planarconfig="separate")
    yield Variant("tiff ycbcr planes", planes, imagecodecs.tiff_decode(plain)[:, :, :3], 1)
    bt709 = (529, 5, 3, (2126, 10000, 7152, 10000, 722, 10000), True)
    studio = (532, 5, 6, (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1), True)
    for name, tags in (("BT.709", [bt709]), ("studio range", [studio]), ("both", [bt709, studio])):
        data = tiff(ycbcr, photometric="ycbcr", extratags=tags)
        yield Variant(f"tiff ycbcr {name}", data, imagecodecs.tiff_decode(data)[:, :, :3], 3)
        for across, down in ((2, 1), (2, 2), (1, 2), (4, 1), (4, 2)):
            for compression in (None, "lzw"):
                data = subsampled(ycbcr, across, down, tags, compression)
                read = imagecodecs.tiff_decode(data)[:, :, :3]
                yield Variant(f"tiff ycbcr {name} {across}x{down} {compression}", data, read, 3)
    mixed = tiff(PICTURE, photometric="rgb", compression="APERIO_JP2000_YCBC")
    yield Variant("tiff aperio", mixed, refused="aperio_jp2000_ycbc")
    grey_alpha = saved(Image.fromarray(np.dstack([GREY, ALPHA])), "TIFF", compression="jpeg")
    yield Variant("tiff jpeg grey alpha", grey_alpha, refused="sampled 1x1, 1x1")


def subsampled(ycbcr: Array, across: int, down: int, tags: list[Any], compression: str | None) -> bytes:
    """A page in one strip whose colours are means over so many pixels. Nothing at hand writes such files: this one is
    a grey page of as many bytes whose directory is then changed."""
    padded = np.pad(ycbcr, ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0)), "edge")
    blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across, 3).transpose(
        0, 2, 1, 3, 4
    )
    luma = blocks[..., 0].reshape(*blocks.shape[:2], -1)
    packed = np.dstack([luma, blocks[..., 1:].mean((2, 3)).astype(np.uint8)]).reshape(1, -1)
    changes = {256: WIDTH, 257: HEIGHT, 262: 6, 277: 3, 278: HEIGHT}
    extra = [(530, 3, 2, (across, down), True), *tags]
    data = bytearray(tiff(packed, photometric="minisblack", compression=compression, extratags=extra))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for tag, value in changes.items():
            entry = file.pages.first.tags[tag]
            struct.pack_into({3: "<H", 4: "<I"}[int(entry.dtype)], data, entry.valueoffset, value)
    return bytes(data)


def tiff_bits() -> Iterator[Variant]:
    """Depths that fill no byte."""
    yield Variant("tiff 1 bit", tiff(GREY > 90, photometric="minisblack"), rgb((GREY > 90) * np.uint8(255)))
    yield Variant("tiff 1 bit white", tiff(GREY > 90, photometric="miniswhite"), rgb((GREY <= 90) * np.uint8(255)))
    for compression in ("group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits"):
        data = saved(Image.fromarray(GREY > 90), "TIFF", compression=compression)
        yield Variant(f"tiff 1 bit {compression}", data, rgb((GREY > 90) * np.uint8(255)))
    for bits in (2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15):
        most = 2**bits - 1
        for name, source in (("grey", GREY), ("rgb", PICTURE)):
            values = (source.astype(np.int64) * most // 255).astype(np.uint8 if bits < 8 else np.uint16)
            photometric = "rgb" if source.ndim == 3 else "minisblack"
            shown = np.floor(values * (255 / most) + 0.5).astype(np.uint8)
            data = tiff(values, photometric=photometric, bitspersample=bits)
            yield Variant(f"tiff {name} {bits} bits", data, rgb(shown) if shown.ndim == 2 else shown)


def tiff_compressions() -> Iterator[Variant]:
    wide = PICTURE.astype(np.uint16) * 257
    floats = PICTURE.astype(np.float32) / 255
    for compression in ("zlib", "lzw", "zstd", "lzma", "packbits", "deflate", "png", "lerc", "jpeg2000"):
        options: dict[str, Any] = {"compression": compression, "photometric": "rgb"}
        yield Variant(f"tiff {compression} 8", tiff(PICTURE, **options), PICTURE)
        yield Variant(f"tiff {compression} 8 tiled", tiff(PICTURE, tile=(16, 16), **options), PICTURE)
        yield Variant(f"tiff {compression} 16", tiff(wide, **options), PICTURE)
        if compression in ("zlib", "lzw", "zstd", "lzma", "deflate"):
            yield Variant(f"tiff {compression} predictor 8", tiff(PICTURE, predictor=True, **options), PICTURE)
            yield Variant(f"tiff {compression} predictor 16", tiff(wide, predictor=True, **options), PICTURE)
            yield Variant(f"tiff {compression} predictor f4", tiff(floats, predictor=True, **options), PICTURE)
        if compression in ("zlib", "lzw", "zstd", "lerc"):
            yield Variant(f"tiff {compression} f4", tiff(floats, **options), PICTURE)
    for compression in ("jpegxl", "jpegxr"):
        data = tiff(PICTURE, photometric="rgb", compression=compression)
        yield Variant(f"tiff {compression}", data, refused=compression)
    yield Variant(
        "tiff webp", tiff(PICTURE, photometric="rgb", compression="webp", compressionargs={"lossless": True}), PICTURE
    )
    for name, photometric, source, arguments in (
        ("grey", "minisblack", GREY, {}),
        ("rgb", "rgb", PICTURE, {"outcolorspace": "rgb"}),
        ("ycbcr 444", "rgb", PICTURE, {"outcolorspace": "ycbcr"}),
    ):
        data = tiff(source, photometric=photometric, compression="jpeg", compressionargs={"level": 95, **arguments})
        read = imagecodecs.tiff_decode(data)
        yield Variant(f"tiff jpeg {name}", data, rgb(read) if read.ndim == 2 else read[:, :, :3], 3)
    data = saved(Image.fromarray(PICTURE), "TIFF", compression="jpeg")
    yield Variant("tiff jpeg by libtiff", data, by_pillow(data), 3)
    twelve = tiff(
        GREY.astype(np.uint16) * 16,
        photometric="minisblack",
        compression="jpeg",
        bitspersample=12,
        compressionargs={"level": 100},
    )
    yield Variant("tiff jpeg 12 bits", twelve, rgb((GREY * (16 * 255 / 4095) + 0.5).astype(np.uint8)), 4)


def tiff_arrangements() -> Iterator[Variant]:
    turned = np.ascontiguousarray(PICTURE[::-1])
    yield Variant("tiff bigtiff", tiff(PICTURE, photometric="rgb", bigtiff=True), PICTURE)
    yield Variant("tiff bigtiff big endian", tiff(PICTURE, photometric="rgb", bigtiff=True, byteorder=">"), PICTURE)
    yield Variant("tiff strips", tiff(PICTURE, photometric="rgb", rowsperstrip=4), PICTURE)
    planes = np.moveaxis(PICTURE, 2, 0)
    yield Variant(
        "tiff planes in strips", tiff(planes, photometric="rgb", planarconfig="separate", rowsperstrip=4), PICTURE
    )
    yield Variant(
        "tiff planes in tiles", tiff(planes, photometric="rgb", planarconfig="separate", tile=(16, 16)), PICTURE
    )
    reversed_bits = tiff(PICTURE, photometric="rgb", compression="lzw", extratags=[])
    yield Variant("tiff lzw", reversed_bits, PICTURE)
    yield Variant(
        "tiff orientation 3", tiff(PICTURE, photometric="rgb", extratags=[(274, 3, 1, 3, True)]), PICTURE[::-1, ::-1]
    )
    yield Variant(
        "tiff orientation 6", tiff(PICTURE, photometric="rgb", extratags=[(274, 3, 1, 6, True)]), np.rot90(PICTURE, -1)
    )

    def pages(*written: tuple[Array, dict[str, Any]]) -> bytes:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            for samples, options in written:
                writer.write(samples, photometric="rgb", metadata=None, **options)
        return buffer.getvalue()

    small = np.ascontiguousarray(PICTURE[::4, ::4])
    yield Variant("tiff pages", pages((PICTURE, {}), (turned, {})), PICTURE)
    yield Variant("tiff thumbnail first", pages((small, {"subfiletype": 1}), (PICTURE, {"subfiletype": 0})), PICTURE)
    yield Variant(
        "tiff thumbnail, then sub-page", pages((small, {"subfiletype": 1, "subifds": 1}), (PICTURE, {})), PICTURE
    )
    yield Variant("tiff pyramid", pages((PICTURE, {"subifds": 1}), (small, {"subfiletype": 1})), PICTURE)
    yield Variant("tiff thumbnail alone", pages((small, {"subfiletype": 1})), small)
    yield Variant(
        "tiff old thumbnail first", pages((small, {"extratags": [(255, 3, 1, 2, True)]}), (PICTURE, {})), PICTURE
    )
    yield Variant(
        "tiff volume",
        tiff(np.stack([PICTURE] * 3), photometric="rgb", volumetric=True, tile=(2, 16, 16)),
        refused="volume",
    )


FAMILIES = (tiff_samples, tiff_colors, tiff_opacity, tiff_ycbcr, tiff_bits, tiff_compressions, tiff_arrangements)
