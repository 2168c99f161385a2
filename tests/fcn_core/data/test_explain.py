"""A pair of photo and mask is explained in its own terms, and every common mistake is named with its remedy."""

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_core.data.explain import ImageAndMask, draw_pair, explain_pair
from fcn_core.data.picture_files import read_mask_file, read_photo
from fcn_core.errors import DataError
from fcn_core.labels import LabelSet, decode_mask, encode_mask, preset
from fcn_core.render import colorize

VOC = preset("voc")


def _file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def _photo(height: int = 30, width: int = 40, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return _file(Image.fromarray(pixels), "JPEG", **options)


def _indices(height: int = 30, width: int = 40) -> npt.NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[5:20, 10:30] = 15
    mask[2:4] = 255
    return mask


def _grey_of_four_bits() -> bytes:
    """A PNG of 40x30 grey pixels of four bits each, which Pillow reads but does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40, 30, 4, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x12" * 20) * 30)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff_of_floats(pixels: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    tifffile.imwrite(sink, (pixels / 255).astype(np.float32), photometric="rgb", metadata=None)
    return sink.getvalue()


def _explain(mask: bytes, labels: LabelSet | None = VOC, photo: bytes | None = None) -> ImageAndMask:
    return explain_pair(read_photo(photo or _photo(), "a.jpg"), read_mask_file(mask, "a.png"), labels)


def test_a_good_pair_is_described_and_nothing_is_wrong() -> None:
    pair = _explain(encode_mask(_indices(), VOC))
    assert pair.problems == ()
    assert pair.indices is not None
    assert np.array_equal(pair.indices, _indices())
    for part in (
        "JPEG, mode RGB: three channels",
        "PNG, mode P: one channel of numbers, and a palette",
        "uint8 [30, 40, 3] = [H, W, channels]",
        "uint8 [30, 40] = [H, W]",
        "values  0, 15, 255",
        "     15  person              300   25.0 %",
        "    255  (ignored)            80    6.7 %",
        "Why is the photo [H, W, 3] and the mask [H, W]?",
        "Nothing is wrong",
    ):
        assert part in pair.text


def test_a_label_set_is_recognised_by_its_palette() -> None:
    pair = _explain(encode_mask(_indices(), VOC), labels=None)
    assert pair.labels == VOC
    assert "label set 'voc' (recognised by its colours)" in pair.text


def test_numbers_of_unknown_meaning_keep_the_files_colours() -> None:
    labels = LabelSet(name="mine", names=("x", "y"), palette=((1, 2, 3), (9, 8, 7)))
    mask = np.eye(30, 40, dtype=np.uint8)
    pair = _explain(encode_mask(mask, labels), labels=None)
    assert pair.labels.palette == labels.palette
    assert "class 1" in pair.text
    assert "--labels" in pair.text
    assert pair.problems == ()


@pytest.mark.parametrize("labels", [VOC, None])
def test_a_colour_coded_mask_is_read_and_its_conversion_told(labels: LabelSet | None) -> None:
    pair = _explain(_file(Image.fromarray(colorize(_indices(), VOC))), labels)
    (problem,) = pair.problems
    assert "colours of label set 'voc', not class numbers" in problem
    assert "encode_mask(indices_from_rgb(rgb, labels), labels) with labels = preset('voc')" in problem
    assert pair.indices is not None
    assert np.array_equal(pair.indices, _indices())
    assert "3 colours, each standing for a class" in pair.text
    assert "person" in pair.text


def test_the_documented_conversion_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "masks.md"
    example = page.read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Image.fromarray(colorize(_indices(), VOC)).save("colours.png")
    exec(compile(example, str(page), "exec"), {})
    assert np.array_equal(decode_mask(Path("mask.png").read_bytes()), _indices())


def test_colours_that_no_class_has_are_named() -> None:
    rgb = colorize(_indices(), VOC)
    rgb[0, :3] = (1, 2, 3)
    pair = _explain(_file(Image.fromarray(rgb)))
    assert "(1, 2, 3) in 3 pixels" in pair.problems[0]
    assert pair.indices is None


def test_colours_of_no_preset_ask_for_a_label_set() -> None:
    pair = _explain(_file(Image.new("RGB", (40, 30), (1, 2, 3))), labels=None)
    assert "those of no preset; write a LabelSet" in pair.problems[0]


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (_file(Image.fromarray(_indices()[:15, :20])), "the photo has 40x30 pixels, the mask 20x15.*nearest neighbour"),
        (_file(Image.fromarray((_indices() == 15) * np.uint8(255))), "only values are 0 and 255.*write 1"),
        (_file(Image.fromarray(np.full((30, 40), 255, np.uint8))), "every pixel is ignored"),
        (_file(Image.fromarray(np.full((30, 40), 21, np.uint8))), "holds 21, but.*write 255 if 21 means void"),
        (_file(Image.fromarray(np.full((30, 40), 77, np.uint8))), "holds 77, but label set 'voc' has classes 0..20"),
        (_file(Image.fromarray(_indices()), "JPEG"), "is a JPEG, which changes values"),
        (_file(Image.fromarray(_indices() == 15)), "mode 1, which readers of masks refuse; save it with encode_mask"),
        (_file(Image.fromarray(_indices().astype(np.uint16) * 300)), "mode I;16 with values 0 to .* no class numbers"),
        (_grey_of_four_bits(), "grey with 4 bits a sample.*class 1 of 4 bits becomes 17"),
    ],
)  # fmt: skip
def test_every_common_mistake_is_named_with_its_remedy(mask: bytes, problem: str) -> None:
    pair = _explain(mask)
    assert any(re.search(problem, found) for found in pair.problems), pair.problems
    assert all(f"Problem: {found}." in pair.text for found in pair.problems)
    draw_pair(pair)


def test_too_many_values_for_classes_are_taken_for_a_smooth_resize() -> None:
    values = np.arange(1200, dtype=np.int64).reshape(30, 40) % 200
    pair = _explain(_file(Image.fromarray(values.astype(np.uint8))), labels=None)
    assert "200 different values" in pair.problems[0]
    assert "and 160 values more" in pair.text


def test_a_photo_that_exif_turns_is_told_from_a_wrong_mask() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _photo(40, 30, exif=exif)
    fits_turned = _explain(encode_mask(_indices(30, 40), VOC), photo=turned)
    assert "as its EXIF orientation (6) turns it" in fits_turned.problems[0]
    fits_stored = _explain(encode_mask(_indices(40, 30), VOC), photo=turned)
    assert "turn the photo and not the mask" in fits_stored.problems[0]


@pytest.mark.parametrize("data", [b"", b"words", _photo()[:200], encode_mask(_indices(), VOC)[:60]])
def test_what_cannot_be_read_is_one_clear_error(data: bytes) -> None:
    for read in (read_photo, read_mask_file):
        with pytest.raises(DataError, match=r"^there\.png is "):
            read(data, "there.png")


def test_a_mask_with_one_bit_flipped_is_not_called_fine() -> None:
    whole = encode_mask(_indices(), VOC)
    at = whole.index(b"IDAT") + 4
    length = struct.unpack_from(">I", whole, at - 8)[0]
    for position in range(at, at + length):
        hurt = bytearray(whole)
        hurt[position] ^= 1
        with pytest.raises(DataError, match="damaged"):
            read_mask_file(bytes(hurt), "a.png")


def test_a_photo_of_16_bits_or_with_transparency_is_shown_as_networks_see_it() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    wide = read_photo(_file(Image.fromarray(grey.astype(np.uint16) * 257)), "a.png")
    assert np.array_equal(wide.array, np.repeat(grey[:, :, None], 3, 2))
    assert wide.mode.startswith("I")
    transparent = read_photo(_file(Image.new("RGBA", (40, 30), (9, 9, 9, 0))), "a.png")
    assert (transparent.array == 255).all()


def test_a_photo_that_segmenting_refuses_is_refused() -> None:
    data = bytearray(_photo())
    data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd9"
    with pytest.raises(DataError, match=r"^a\.jpg is no photo that can be read: The file is damaged.*Copy it again"):
        read_photo(bytes(data), "a.jpg")


def test_every_format_that_is_segmented_is_explained() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for photo in (_file(Image.fromarray(pixels), "JPEG2000"), tiff_of_floats(pixels)):
        shown = read_photo(photo, "a").array
        assert np.array_equal(shown, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_drawn_as_it_is_stored_under_its_mask(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photo = read_photo(_file(Image.fromarray(pixels), exif=exif), "a.png")
    assert photo.orientation == orientation
    assert np.array_equal(photo.array, pixels)


@pytest.mark.parametrize("kind", ["GIF", "PPM"])
def test_a_mask_that_is_no_png_is_not_called_fine(kind: str) -> None:
    pair = _explain(_file(Image.fromarray(_indices()), kind))
    assert any(f"the mask is a {kind}, which readers of masks refuse" in problem for problem in pair.problems)


def test_the_picture_shows_photo_mask_overlay_and_the_classes_present() -> None:
    sheet = draw_pair(_explain(encode_mask(_indices(), VOC)), panel_width=300)
    pixels = np.asarray(sheet)
    assert sheet.width == 3 * 316 + 16
    person, car = VOC.palette[15], VOC.palette[7]
    rows, columns = np.nonzero((pixels == person).all(-1))
    assert ((columns > 332) & (columns < 632) & (rows < 280)).any()  # in the mask
    assert (rows > 280).any()  # in the legend
    assert not (pixels == car).all(-1).any()


def test_a_mask_of_another_size_is_drawn_without_an_overlay() -> None:
    assert draw_pair(_explain(encode_mask(_indices(10, 10), VOC)), panel_width=300).width == 2 * 316 + 16


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LA"]),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([None, "voc", "camvid"]),
    st.randoms(use_true_random=False),
)
def test_any_mode_and_content_is_explained_and_drawn(
    mode: str, height: int, width: int, labels: str | None, random: Any
) -> None:
    image = Image.frombytes("L", (width, height), random.randbytes(height * width)).convert("L")
    mask = _file(image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode), "TIFF")
    pair = _explain(mask, preset(labels) if labels else None)
    assert "Problem: " in pair.text or "size" in pair.text
    assert draw_pair(pair, panel_width=60).mode == "RGB"
