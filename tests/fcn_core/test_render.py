import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_core.errors import LabelError
from fcn_core.labels import LabelSet, preset
from fcn_core.render import SheetTile, colorize, contact_sheet, legend, overlay, shrink

LABELS = LabelSet(name="pair", names=("left", "right"), palette=((250, 0, 0), (0, 0, 250)))


def halves(height: int = 8, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    return np.full((height, width, 3), 100, np.uint8), mask


def has_color(picture: Image.Image, color: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == color).all(axis=-1).any())


def test_an_overlay_mixes_photo_and_class_colour_by_alpha():
    image, mask = halves()
    mixed = overlay(image, mask, LABELS, alpha=0.5, outline=False)
    assert mixed[0, 0].tolist() == [175, 50, 50]
    assert mixed[0, 7].tolist() == [50, 50, 175]
    assert (overlay(image, mask, LABELS, alpha=0, outline=False) == image).all()
    assert (overlay(image, mask, LABELS, alpha=1) == colorize(mask, LABELS)).all()


def test_an_overlay_leaves_ignored_pixels_as_they_are_and_its_arguments_too():
    image, mask = halves()
    mask[2:4] = 255
    before = image.copy(), mask.copy()
    assert (overlay(image, mask, LABELS)[2:4] == 100).all()
    assert (image == before[0]).all()
    assert (mask == before[1]).all()


def test_an_outline_marks_borders_only():
    image, mask = halves()
    changed = (overlay(image, mask, LABELS) != overlay(image, mask, LABELS, outline=False)).any(axis=(0, 2))
    assert np.flatnonzero(changed).tolist() == [3]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(LabelError, match="with its own image"):
        overlay(halves()[0], halves(4, 8)[1], LABELS)


@pytest.mark.parametrize("name", ["voc", "camvid", "cityscapes"])
@pytest.mark.parametrize("width", [60, 320, 1200])
def test_a_legend_shows_every_colour_at_any_width(name, width):
    labels = preset(name)
    picture = legend(labels, width)
    assert picture.width == width
    assert all(has_color(picture, color) for color in labels.palette)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 400), st.integers(1, 400), st.text(max_size=300))
def test_a_sheet_takes_any_number_shape_and_caption(count, columns, height, width, caption):
    sheet = contact_sheet([SheetTile(caption, *halves(height, width), note=caption)] * count, LABELS, columns=columns)
    assert sheet.mode == "RGB"
    shown = min(columns, count)
    assert sheet.width == 48 + shown * 442 + (shown - 1) * 20


def test_a_sheet_shows_photo_overlay_and_legend_and_nothing_distorted():
    sheet = np.asarray(contact_sheet([SheetTile("a", *halves(40, 40))], LABELS, columns=1, tile_width=200, alpha=1.0))
    for color in LABELS.palette:
        rows, columns = np.nonzero((sheet == color).all(axis=-1))
        in_tile = rows < 24 + 150
        assert np.ptp(rows[in_tile]) + 1 == 150
        assert 63 <= np.ptp(columns[in_tile]) + 1 <= 75  # resampling blurs the border between the halves
        assert (rows > 24 + 150).any()


def test_a_sheet_without_tiles_is_refused():
    with pytest.raises(ValueError, match="needs a tile"):
        contact_sheet([], LABELS)


def test_a_truth_is_shown_between_image_and_prediction():
    image, mask = halves(30, 40)
    tile = SheetTile("a", image, mask, truth=1 - mask)
    pair = contact_sheet([SheetTile("a", image, mask)], LABELS, columns=1, tile_width=40)
    sheet = contact_sheet([tile], LABELS, columns=1, tile_width=40, alpha=1)
    assert sheet.width == pair.width + 42
    row = np.asarray(sheet)[24 + 15]  # below the margin, in the middle of the picture
    pictures = [row[24 + 42 * k : 24 + 42 * k + 40] for k in range(3)]
    assert (pictures[0] == 100).all()
    assert pictures[1][5].tolist() == pictures[2][35].tolist() == [0, 0, 250]
    assert pictures[1][35].tolist() == pictures[2][5].tolist() == [250, 0, 0]


def test_a_shrunken_tile_keeps_its_proportions_and_no_new_classes():
    image, mask = halves(300, 400)
    small = shrink(SheetTile("a", image, mask, "note", truth=1 - mask), 100)
    assert small.truth is not None
    assert small.image.shape == (75, 100, 3)
    assert small.mask.shape == small.truth.shape == (75, 100)
    assert (small.mask + small.truth == 1).all()
    assert (small.caption, small.note) == ("a", "note")
    assert shrink(small, 100) is small
