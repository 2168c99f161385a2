"""Which images are shown as the worst, and that they look as they were."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_core.labels import decode_mask
from fcn_core.render import SheetTile
from pipeline.evaluation.gallery import TILE_WIDTH, Gallery, ScoredExample, draw, worst
from tests.labelled import LABELS, truth
from tests.samples import photo

scored = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), max_size=30)


def tile(index: int, width: int = 8, height: int = 6) -> SheetTile:
    mask = np.full((height, width), index % LABELS.num_classes, np.uint8)
    return SheetTile(str(index), np.zeros((height, width, 3), np.uint8), mask, truth=mask)


def gallery_of(scores: list[float], size: int, first: int = 0) -> tuple[ScoredExample, ...]:
    gallery = Gallery(size, LABELS)
    for index, score in enumerate(scores, first):
        gallery.offer(score, index, tile(index))
    return gallery.examples()


@given(scored, st.integers(0, 6))
def test_a_gallery_shows_the_worst_and_of_equals_the_first(scores: list[float], size: int) -> None:
    expected = sorted(enumerate(scores), key=lambda item: (item[1], item[0]))[:size]
    assert [exhibit.caption for exhibit in gallery_of(scores, size)] == [str(index) for index, _ in expected]


@given(scored, st.integers(1, 6), st.integers(0, 30))
def test_the_worst_of_parts_are_the_worst_of_the_whole(scores: list[float], size: int, cut: int) -> None:
    parts = [*gallery_of(scores[:cut], size), *gallery_of(scores[cut:], size, first=len(scores[:cut]))]
    assert worst(reversed(parts), size) == list(gallery_of(scores, size))


def test_an_exhibit_is_no_larger_than_can_be_shown_and_true_to_its_masks() -> None:
    gallery = Gallery(2, LABELS)
    small, large = truth(100, 80, 1), truth(3000, 2000, 2)
    gallery.offer(0.5, 0, SheetTile("small", photo(100, 80), small, truth=small[::-1].copy()))
    gallery.offer(0.1, 1, SheetTile("large", photo(3000, 2000), large, truth=large))
    first, second = gallery.examples()
    assert (first.caption, second.caption) == ("large", "small")
    assert Image.open(io.BytesIO(first.image)).size == (2 * TILE_WIDTH, round(2 * TILE_WIDTH * 2 / 3))
    assert set(np.unique(decode_mask(first.truth))) <= set(np.unique(large))
    assert (decode_mask(second.mask) == small).all()
    assert (decode_mask(second.truth) == small[::-1]).all()


def test_a_sheet_has_all_of_them() -> None:
    exhibits = gallery_of([0.1, 0.2, 0.3], 3)
    one, three = (Image.open(io.BytesIO(draw(exhibits[:n], LABELS, "worst"))) for n in (1, 3))
    assert three.width > one.width > 3 * TILE_WIDTH
    assert three.height > one.height
