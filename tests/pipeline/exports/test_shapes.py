"""Outlines, cuts and run lengths against the pixels that they are of."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco_masks

from fcn_core.labels import VOID, Mask
from pipeline.data.annotations.regions import Points, polygon
from pipeline.exports.shapes.keyhole import one_ring
from pipeline.exports.shapes.outlines import Part, large_parts, parts_of, signed_area
from pipeline.exports.shapes.run_lengths import encode_regions
from pipeline.exports.shapes.simplify import simplify

MASKS = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, VOID])
)


def filled(shape: tuple[int, ...], rings: list[npt.NDArray[np.generic]]) -> npt.NDArray[np.bool_]:
    bits = np.zeros(shape, np.bool_)
    points: list[Points] = [ring.astype(np.float64) for ring in rings]
    region = polygon(points, *shape)
    height, width = region.bits.shape
    bits[region.top : region.top + height, region.left : region.left + width] = region.bits
    return bits


@settings(max_examples=50)
@given(MASKS)
def test_filling_the_outlines_gives_the_mask_again(mask: Mask) -> None:
    again = np.full_like(mask, VOID)
    for class_id, part in large_parts(mask):
        bits = filled(mask.shape, [part.outer, *part.holes])
        assert np.count_nonzero(bits) == part.area
        assert (again[bits] == VOID).all(), "parts overlap"
        again[bits] = class_id
        assert (filled(mask.shape, [one_ring(part)]) == bits).all()
    assert (again == mask).all()


@settings(max_examples=50)
@given(MASKS)
def test_no_ring_meets_a_point_twice_and_holes_turn_the_other_way(mask: Mask) -> None:
    for _, part in large_parts(mask):
        assert signed_area(part.outer) > 0
        for ring in (part.outer, *part.holes):
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)
        assert all(signed_area(hole) < 0 for hole in part.holes)


@settings(max_examples=50)
@given(MASKS)
def test_pycocotools_reads_outlines_and_run_lengths_as_the_mask(mask: Mask) -> None:
    height, width = mask.shape
    for region in encode_regions(mask):
        bits = mask == region.class_id
        theirs = coco_masks.encode(np.asfortranarray(bits.astype(np.uint8)))
        assert region.counts == theirs["counts"].decode()
        assert (region.area, list(region.box)) == (bits.sum(), coco_masks.toBbox(theirs).tolist())
        rings = [one_ring(part).reshape(-1).tolist() for part in parts_of(bits)]
        drawn = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(rings, height, width)))
        assert (drawn == bits).all()


def blob() -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:90, :120]
    ring = np.hypot(y - 45, (x - 60) / 1.2)
    return (ring < 40 + 3 * np.sin(x / 5)) & (ring > 15)


@pytest.mark.parametrize("tolerance", [1.0, 3.0])
def test_a_simplified_outline_stays_within_its_tolerance(tolerance: float) -> None:
    (exact,) = parts_of(blob())
    part = simplify(exact, tolerance)
    assert len(part.outer) < len(exact.outer) / 2
    assert part.area == exact.area
    for simpler, ring in zip((part.outer, *part.holes), (exact.outer, *exact.holes), strict=True):
        assert max(distance(point, simpler) for point in ring) <= tolerance
    changed = filled(blob().shape, [one_ring(part)]) != blob()
    for y, x in np.argwhere(changed):
        assert min(distance(np.array([x + 0.5, y + 0.5]), ring) for ring in (exact.outer, *exact.holes)) <= tolerance


def distance(point: npt.NDArray[np.generic], ring: npt.NDArray[np.generic]) -> float:
    """To the nearest point of the ring's edges."""
    begin = ring.astype(np.float64)
    along = np.roll(begin, -1, axis=0) - begin
    share = np.clip(((point - begin) * along).sum(1) / (along**2).sum(1), 0, 1)
    return float(np.hypot(*(point - begin - share[:, None] * along).T).min())


def test_a_ring_that_would_vanish_stays_exact() -> None:
    bits = np.zeros((5, 5), np.bool_)
    bits[2, 1:4] = True
    (part,) = parts_of(bits)
    assert simplify(part, 10).outer.tolist() == part.outer.tolist() == [[1, 2], [4, 2], [4, 3], [1, 3]]


def test_pixels_that_touch_by_a_corner_are_two_parts() -> None:
    parts: list[Part] = parts_of(np.eye(2, dtype=np.bool_))
    assert [part.outer.tolist() for part in parts] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]
