"""Whether 95 % intervals hold the truth in 95 % of audits, on populations whose truth is known."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fcn_core import preset
from fcn_core.labels import Mask, decode_mask
from pipeline.audit.arrays import Array
from pipeline.audit.clusters import choose_clusters
from pipeline.audit.design import Design
from pipeline.audit.shares import Known, Measured, coefficients, estimate_shares
from tests.pipeline.audit.populations import Images, cover, plan, street, tails, videos

FEW, MANY = 250, 2000
CAMVID = preset("camvid")


def expect(covered: Array, audits: int) -> None:
    """That coverage is 93 to 97 %, as far as so many audits can tell."""
    slack = 3 * np.sqrt(0.95 * 0.05 / audits) if audits < MANY else 0
    assert (covered >= 0.93 - slack).all(), covered
    assert (covered <= 0.97 + slack).all(), covered


@pytest.mark.parametrize(
    "audits", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few audits", "2,000 audits"]
)
def test_intervals_of_rare_classes_too_hold_the_truth_and_are_narrower_than_without_a_model(audits: int) -> None:
    planned = plan(street(5000, seed=1), 300)
    found = cover(planned, audits)
    expect(found.covered, audits)
    alone = cover(planned, FEW, "sample")
    assert (found.half_width < alone.half_width).all()


def test_intervals_under_heavy_tails_hold_the_truth_at_least_as_often() -> None:
    images = tails(5000, seed=1)
    found = cover(plan(images, 300), FEW)
    common = images.truth.mean(axis=0) > 0.001
    assert (found.covered[common] >= 0.93 - 3 * np.sqrt(0.95 * 0.05 / FEW)).all(), found.covered


@pytest.mark.parametrize(("make", "n"), [(street, 100), (street, 40)])
def test_small_samples_of_common_classes_do(make: Callable[[int, int], Images], n: int) -> None:
    images = make(1000, 2)
    found = cover(plan(images, n), FEW)
    expect(found.covered[images.truth.mean(axis=0) > 0.01], FEW)


def test_the_expected_width_is_told_within_a_factor_of_three() -> None:
    planned = plan(street(5000, seed=1), 300)
    ratio = planned.expected / cover(planned, 50).half_width
    assert ratio.min() > 1 / 3
    assert ratio.max() < 3


def whole_folders(images: Images, folders: int, audits: int, *, ignore: bool) -> Array:
    """Coverage of intervals from samples of whole folders; `ignore` takes their images for drawn one by one."""
    truth = images.truth.mean(axis=0)
    count = int(images.folder.max()) + 1
    hits = np.zeros(len(truth))
    known = Known(images.model.sum(axis=0), float(len(images.model)))
    for seed in range(audits):
        chosen = choose_clusters(np.zeros(count, np.int64), np.array([folders]), seed)
        places = np.flatnonzero(np.isin(images.folder, chosen))
        if ignore:
            design, units = Design(np.zeros(len(places), np.int64), np.array([float(len(images.model))])), places
            sample = Measured(images.truth[units], images.model[units], np.ones(len(units)), np.zeros(len(units)))
        else:
            inside = (images.folder[places] == chosen[:, None]).astype(float)
            size = inside.sum(axis=1)
            design = Design(np.zeros(folders, np.int64), np.array([float(count)]))
            sample = Measured(inside @ images.truth[places], inside @ images.model[places], size, 0 * size)
        found = estimate_shares(design, sample, known, coefficients(design, sample, "regression"))
        hits += (found.low <= truth) & (truth <= found.high)
    return hits / audits


def test_intervals_that_ignore_folders_are_too_narrow_and_those_that_follow_from_them_are_not() -> None:
    images = videos(80, 20, seed=3)
    assert (whole_folders(images, 20, FEW, ignore=True) < 0.7).all()
    expect(whole_folders(images, 20, FEW, ignore=False), FEW)


def test_a_sample_of_images_speaks_for_other_folders_only_with_cluster() -> None:
    """The truth here is that of all videos such as these, of which the output has only some."""
    everything = videos(4000, 5, seed=9).truth.mean(axis=0)
    hits = {True: np.zeros(4), False: np.zeros(4)}
    for seed in range(FEW):
        images = videos(40, 25, seed)
        planned = plan(images, 80)
        places = next(planned.samples(1, seed))
        for clustered in (True, False):
            found = planned.estimate(places, clusters=images.folder[places] if clustered else None, how="sample")
            hits[clustered] += (found.low <= everything) & (everything <= found.high)
    assert (hits[False] / FEW < 0.85).all(), hits[False] / FEW
    expect(hits[True] / FEW, FEW)


def coarse_model(mask: Mask) -> Mask:
    """What a network of a coarse stride does, at its worst: the commonest class of each block of 24 by 24 pixels, so
    that what is thin vanishes."""
    blocks = mask.reshape(mask.shape[0] // 24, 24, mask.shape[1] // 24, 24)
    votes = np.stack([(blocks == index).sum(axis=(1, 3)) for index in range(CAMVID.num_classes)])
    return np.kron(votes.argmax(axis=0), np.ones((24, 24), np.int64)).astype(np.uint8)


def test_thirty_of_camvids_images_tell_the_truth_of_101() -> None:
    root = os.environ.get("FCN_CAMVID")
    if not root:
        pytest.skip("FCN_CAMVID names no CamVid folder")
    names = (Path(root) / "ImageSets/Segmentation/val.txt").read_text().split()
    truth, model, confidence = [], [], []
    for name in names:
        mask = decode_mask((Path(root) / "SegmentationClass" / f"{name}.png").read_bytes())
        labelled = mask < CAMVID.num_classes
        for counts, values in ((truth, mask), (model, coarse_model(mask))):
            counts.append(np.bincount(values[labelled], minlength=CAMVID.num_classes) / labelled.sum())
        confidence.append(1 - 3 * float((mask[:, 1:] != mask[:, :-1]).mean()))
    images = Images(np.array(truth), np.array(model), np.array(confidence), np.zeros(len(names), np.int64))
    assert len(names) == 101
    found = cover(plan(images, 30), FEW)
    common = images.truth.mean(axis=0) > 0.001
    print(np.round(100 * images.truth.mean(axis=0), 2), np.round(100 * images.model.mean(axis=0), 2))
    print(np.round(100 * found.half_width, 2), found.covered)
    assert (found.covered[common] > 0.93 - 3 * np.sqrt(0.95 * 0.05 / FEW)).all(), found.covered
