import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from flows.demo.canvas import Part
from flows.demo.scenes import SCENE_LABELS, SIZES, generate_scene, scene_size, special_files


def test_a_seed_decides_every_pixel():
    first, second = generate_scene(5, 160, 120), generate_scene(5, 160, 120)
    assert (first.image == second.image).all()
    assert (first.mask == second.mask).all()
    assert (generate_scene(6, 160, 120).mask != first.mask).any()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**9), st.integers(16, 200), st.integers(16, 200))
def test_any_size_gives_an_image_and_a_mask_of_known_classes(seed, width, height):
    scene = generate_scene(seed, width, height)
    assert scene.image.shape == (height, width, 3)
    assert scene.mask.shape == (height, width)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    assert scene.mask.max() < SCENE_LABELS.num_classes


def test_a_scene_too_small_to_show_anything_is_refused():
    with pytest.raises(ValueError, match="15x40"):
        generate_scene(0, 15, 40)


def test_a_few_scenes_show_every_class():
    masks = [generate_scene(seed, 160, 120).mask for seed in range(20)]
    counts = sum(np.bincount(mask.ravel(), minlength=len(Part)) for mask in masks)
    assert (counts / counts.sum() > 0.003).all()


def test_scenes_come_in_every_size_and_a_seed_keeps_its_own():
    assert {scene_size(seed) for seed in range(60)} == set(SIZES)
    assert scene_size(3) == scene_size(3)


def test_the_mask_lies_where_the_picture_shows_it():
    """Sky is painted first and stays smooth; where the mask says sky the picture must be nearly free of
    edges."""
    scene = generate_scene(100)
    steps = np.abs(np.diff(scene.image.astype(int), axis=1)).sum(axis=2)
    both_sky = (scene.mask[:, 1:] == Part.SKY) & (scene.mask[:, :-1] == Part.SKY)
    across = (scene.mask[:, 1:] == Part.SKY) != (scene.mask[:, :-1] == Part.SKY)
    assert np.median(steps[across]) > 6 * np.median(steps[both_sky])


def test_the_label_set_names_the_parts():
    assert SCENE_LABELS.names == ("sky", "building", "road", "sidewalk", "tree", "car", "pole", "person")


def test_the_special_files_are_what_they_say():
    files = {file.name: file for file in special_files(7)}

    def opened(name: str) -> Image.Image:
        return Image.open(io.BytesIO(files[name].data))

    stored = opened("phone-portrait.jpg")
    displayed = np.asarray(ImageOps.exif_transpose(stored))
    truth = generate_scene(7, 192, 256)
    assert stored.size == (256, 192)
    assert displayed.shape == (256, 192, 3)
    assert np.abs(displayed.astype(int) - truth.image).mean() < 12
    assert (files["phone-portrait.jpg"].mask == truth.mask).all()

    with pytest.raises(OSError, match="truncated"):
        opened("cut-short.jpg").load()
    with pytest.raises(OSError, match="cannot identify"):
        opened("notes.jpg")
    assert opened("scanner-16bit.png").mode == "I;16"
    assert opened("palette.gif").mode == "P"
    for file in files.values():
        if file.mask is not None and file.name != "phone-portrait.jpg":
            assert opened(file.name).size == file.mask.shape[::-1]
    assert [name for name, file in files.items() if file.mask is None] == ["cut-short.jpg", "notes.jpg"]
