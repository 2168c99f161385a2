"""Label sets say what they mean, and masks survive the way to a PNG and back."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fcn_core.errors import LabelError
from fcn_core.labels import (
    PRESETS,
    LabelSet,
    decode_mask,
    encode_mask,
    find_labels,
    indices_from_rgb,
    parse_labels,
    preset,
)

THREE = LabelSet(name="three", names=("a", "b", "c"), palette=((0, 0, 0), (10, 20, 30), (255, 0, 0)))


@pytest.mark.parametrize(("name", "classes"), [("voc", 21), ("camvid", 11), ("cityscapes", 19)])
def test_presets_have_their_published_sizes_and_distinct_colours(name: str, classes: int) -> None:
    labels = preset(name)
    assert labels.num_classes == classes
    assert len({*labels.palette, labels.ignore_color}) == classes + 1


def test_presets_are_all_listed() -> None:
    assert set(PRESETS) == {"voc", "camvid", "cityscapes"}


def test_voc_colours_are_those_of_the_development_kit() -> None:
    voc = preset("voc")
    assert voc.palette[voc.names.index("person")] == (192, 128, 128)
    assert voc.palette[voc.names.index("tvmonitor")] == (0, 64, 128)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(LabelError, match="no label set 'coco'; choose one of voc, camvid, cityscapes"):
        preset("coco")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": (), "palette": ()}, "it has 0 classes"),
        ({"names": ("a", "b", "a")}, "class name 'a' occurs more than once"),
        ({"names": ("a", " ", "c")}, "class 1 has an empty name"),
        ({"names": ("a", "b")}, "2 names but 3 colours"),
        ({"palette": ((0, 0, 0), (1, 2, 3), (256, 0, 0))}, r"\(256, 0, 0\) is not in 0..255"),
        ({"ignore_color": (-1, 0, 0)}, r"\(-1, 0, 0\) is not in 0..255"),
        ({"ignore_index": 2}, "ignore index 2 is also class 'c'"),
        ({"ignore_index": 256}, "ignore index 256 does not fit a byte"),
        ({"colour": 1}, "colour: Extra inputs"),
    ],
)
def test_impossible_label_sets_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        LabelSet(**{**THREE.model_dump(), **change})


def test_label_set_of_255_classes_fits() -> None:
    names = tuple(f"class {index}" for index in range(255))
    assert LabelSet(name="many", names=names, palette=((1, 2, 3),) * 255).num_classes == 255


def test_label_set_survives_json() -> None:
    assert LabelSet.model_validate_json(THREE.model_dump_json()) == THREE


def test_flat_palette_has_all_256_entries() -> None:
    flat = THREE.flat_palette()
    assert len(flat) == 768
    assert flat[3:6] == bytes((10, 20, 30))
    assert flat[765:] == bytes(THREE.ignore_color)


masks = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
    elements=st.sampled_from([0, 1, 2, 255]),
)


@given(masks)
def test_any_mask_comes_back_from_its_png(mask: np.ndarray) -> None:
    data = encode_mask(mask, THREE)
    assert np.array_equal(decode_mask(data), mask)
    assert encode_mask(mask.copy(), THREE) == data


@given(masks)
def test_any_mask_comes_back_from_its_colours(mask: np.ndarray) -> None:
    rgb = np.frombuffer(THREE.flat_palette(), np.uint8).reshape(256, 3)[mask]
    assert np.array_equal(indices_from_rgb(rgb, THREE), mask)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("name", "names", "palette", "ignore_index", "train_ids", "description"), ANYTHING)
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_any_label_file_is_read_or_refused_in_one_sentence(content: bytes) -> None:
    refusal = ""
    try:
        parse_labels(content, "labels.json")
    except LabelError as error:
        refusal = str(error)
    assert not refusal or "labels.json" in refusal
    assert len(refusal) < 2_000


def test_mask_png_is_a_palette_image_of_the_label_colours() -> None:
    image = Image.open(io.BytesIO(encode_mask(np.array([[0, 2]], np.uint8), THREE)))
    assert image.mode == "P"
    assert image.getpalette() == list(THREE.flat_palette())
    assert image.convert("RGB").getpixel((1, 0)) == (255, 0, 0)


def test_mask_may_be_a_view_with_strides() -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::-2] % 3
    assert np.array_equal(decode_mask(encode_mask(mask, THREE)), mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 2), np.int64), r"not int64 \[2, 2\]"),
        (np.zeros((2, 2, 3), np.uint8), r"not uint8 \[2, 2, 3\]"),
        (np.zeros((0, 2), np.uint8), r"not uint8 \[0, 2\]"),
        (np.array([[0, 3, 255]], np.uint8), r"holds \[3\], but label set 'three' has classes 0..2"),
    ],
)
def test_what_is_no_mask_is_not_encoded(mask: np.ndarray, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        encode_mask(mask, THREE)


def _png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_grey_masks_and_small_palettes_are_read_as_indices() -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    assert np.array_equal(decode_mask(_png(Image.fromarray(mask))), mask)
    small = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8))
    small.putpalette(b"\0\0\0\1\1\1\2\2\2")
    assert decode_mask(_png(small, bits=2)).tolist() == [[0, 1, 2, 1]]


def _grey_of_four_bits() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x12")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_png(Image.new("RGB", (2, 2))), "holds colours.*indices_from_rgb"),
        (_png(Image.new("RGBA", (2, 2))), "holds colours.*indices_from_rgb"),
        (_png(Image.new("1", (2, 2))), "a PNG of mode 1"),
        (_grey_of_four_bits(), "grey PNG of 4 bits"),
        (b"GIF89a", "not a PNG"),
        (b"", "not a PNG"),
        (encode_mask(np.ones((9, 9), np.uint8), THREE)[:-30], "damaged PNG"),
    ],
)
def test_what_is_no_mask_is_not_decoded(data: bytes, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        decode_mask(data)


def test_unknown_colours_are_named_commonest_first() -> None:
    rgb = np.zeros((1, 6, 3), np.uint8)
    rgb[0, 1:3] = (9, 9, 9)
    rgb[0, 3] = (7, 7, 7)
    with pytest.raises(LabelError, match=r"\(9, 9, 9\) in 2 pixels, \(7, 7, 7\) in 1 pixels;"):
        indices_from_rgb(rgb, THREE)


def test_colours_shared_by_classes_cannot_be_told_apart() -> None:
    labels = LabelSet(name="twins", names=("a", "b"), palette=((1, 1, 1), (1, 1, 1)))
    with pytest.raises(LabelError, match=r"colour \(1, 1, 1\) to both 0 and 1"):
        indices_from_rgb(np.ones((1, 1, 3), np.uint8), labels)


def test_rgb_masks_must_have_three_channels_of_bytes() -> None:
    with pytest.raises(LabelError, match=r"not float64 \[2, 2, 3\]"):
        indices_from_rgb(np.zeros((2, 2, 3)), THREE)  # type: ignore[arg-type]


def test_reading_masks_does_not_load_torch() -> None:
    code = "import sys, fcn_core.labels; from fcn_core import preset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_label_sets_are_found_by_name_or_file(tmp_path: Path) -> None:
    assert find_labels("camvid") == preset("camvid")
    path = tmp_path / "own.json"
    path.write_text(THREE.model_dump_json())
    assert find_labels(str(path)) == THREE
    path.write_text(json.dumps({"name": "roofs", "names": ["other", "roof"]}))
    assert find_labels(str(path)).palette == preset("voc").palette[:2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("\xff", "is not JSON"),
        ("[]", "must be an object"),
        ('{"names": 3}', "must be an object"),
        ('{"names": ["a", "a"], "name": "twice"}', "occurs more than once"),
        ('{"names": []}', "own.json"),
        ('{"names": ["a", "b"], "name": "own", "names": ["b", "a"]}', "'names' twice"),
    ],
)
def test_label_files_that_are_none_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "own.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(LabelError, match=message):
        find_labels(str(tmp_path / "own.json"))


def test_label_sets_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"no label set 'ade20k'; choose one of voc, camvid, cityscapes, or give"):
        find_labels("ade20k")
    with pytest.raises(LabelError, match="cannot read the label set"):
        find_labels(str(tmp_path / "absent.json"))
