"""Shares and their intervals, held against figures printed in papers and against sums by hand."""

import itertools

import numpy as np
import pytest

from pipeline.audit.accuracy import Agreed, class_accuracy, pixel_accuracy
from pipeline.audit.design import Design, merged, spread, unseen_share
from pipeline.audit.quantiles import t_quantiles
from pipeline.audit.shares import Known, Measured, coefficients, estimate_shares
from tests.pipeline.audit.populations import Images, plan

OLOFSSON = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
"""Olofsson et al. 2014, table 8: sampled pixels by map class (rows) and reference class: deforestation, forest gain,
stable forest, stable non-forest."""

OLOFSSON_PIXELS = np.array([200_000.0, 150_000.0, 3_200_000.0, 6_450_000.0])
HECTARES = 0.09  # of a pixel of 30 m


def one_hot(classes: list[int], count: int) -> np.ndarray:
    return np.eye(count)[classes]


def olofsson_sample() -> tuple[Design, Measured, Known]:
    """Each pixel as an image of one pixel; strata are the map's classes. Drawn with replacement, as in the paper."""
    mapped, true = [], []
    for row, column in itertools.product(range(4), range(4)):
        mapped += [row] * OLOFSSON[row, column]
        true += [column] * OLOFSSON[row, column]
    design = Design(np.array(mapped), OLOFSSON_PIXELS, replacement=True)
    ones = np.ones(len(mapped))
    return design, Measured(one_hot(true, 4), one_hot(mapped, 4), ones, 0 * ones), Known(OLOFSSON_PIXELS, 1e7)


@pytest.mark.parametrize("how", ["regression", "difference", "sample"])
def test_areas_and_errors_are_those_that_olofsson_et_al_print(how: str) -> None:
    design, sample, known = olofsson_sample()
    # No class is ever absent without saying so here: the rule for unseen errors is not part of the paper's formula.
    found = estimate_shares(design, sample, known, coefficients(design, sample, how))  # type: ignore[arg-type]
    shares = (OLOFSSON_PIXELS / 1e7) @ (OLOFSSON / OLOFSSON.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.value, shares, atol=1e-9, rtol=0)
    assert [round(area) for area in found.value * 1e7 * HECTARES] == [21158, 11686, 285770, 581386]


def test_variances_are_those_of_olofsson_et_al() -> None:
    design, sample, _ = olofsson_sample()
    weights, taken = OLOFSSON_PIXELS / 1e7, OLOFSSON.sum(axis=1)
    part = OLOFSSON / taken[:, None]
    by_hand = np.sqrt((weights[:, None] ** 2 * part * (1 - part) / (taken[:, None] - 1)).sum(axis=0))
    everything_tells = np.zeros(sample.truth.shape, bool)
    found = spread(design, sample.truth / 1e7, everything_tells)
    np.testing.assert_allclose(found.error, by_hand, atol=1e-9, rtol=0)
    # "± 6158 ha, 3756 ha, 15510 ha, 16282 ha" in the paper.
    assert [round(1.96 * error * 1e7 * HECTARES) for error in found.error] == [6158, 3756, 15510, 16282]


def test_a_sample_by_hand() -> None:
    # Two strata of 10 and 40 images of one pixel each, three and four of which were drawn.
    truth = np.array([0.2, 0.4, 0.3, 0.8, 0.6, 0.9, 0.7])
    model = np.array([0.1, 0.3, 0.4, 0.7, 0.7, 0.7, 0.6])
    stratum = np.array([0, 0, 0, 1, 1, 1, 1])
    design = Design(stratum, np.array([10.0, 40.0]))
    ones = np.ones(7)
    sample = Measured(np.stack([truth, 1 - truth], 1), np.stack([model, 1 - model], 1), ones, 0 * ones)
    known = Known(np.array([32.0, 18.0]), 50.0)
    found = estimate_shares(design, sample, known, np.ones(2))
    errors = truth - model  # 0.1 0.1 -0.1 | 0.1 -0.1 0.2 0.1
    value = 32 / 50 + (10 * errors[:3].mean() + 40 * errors[3:].mean()) / 50
    parts = [
        (10 / 50) ** 2 * (1 - 3 / 10) * errors[:3].var(ddof=1) / 3,
        (40 / 50) ** 2 * (1 - 4 / 40) * errors[3:].var(ddof=1) / 4,
    ]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    half = float(t_quantiles(np.array([freedom]))[0]) * sum(parts) ** 0.5
    assert found.value[0] == pytest.approx(value, abs=1e-12)
    assert (found.high - found.low)[0] / 2 == pytest.approx(half, abs=1e-12)
    assert found.value.sum() == pytest.approx(1, abs=1e-12), "the difference estimator's shares add up"


def test_void_pixels_are_not_part_of_what_is_shared() -> None:
    # Half of each image's pixels are void; of the others 30 and 70 are of the two classes, whatever the model says.
    stratum = np.zeros(4, np.int64)
    truth = np.tile([30.0, 70.0], (4, 1))
    model = np.tile([100.0, 100.0], (4, 1))
    sample = Measured(truth, model, np.full(4, 200.0), np.full(4, 100.0))
    design = Design(stratum, np.array([9.0]))
    found = estimate_shares(design, sample, Known(np.array([900.0, 900.0]), 1800.0), np.ones(2))
    np.testing.assert_allclose(found.value, [0.3, 0.7], atol=1e-12)


def test_large_images_count_for_more() -> None:
    sample = Measured(np.array([[0.0, 100.0], [300.0, 0.0]]), np.zeros((2, 2)), np.array([100.0, 300.0]), np.zeros(2))
    design = Design(np.zeros(2, np.int64), np.array([2.0]))
    found = estimate_shares(design, sample, Known(np.zeros(2), 400.0), np.zeros(2))
    np.testing.assert_allclose(found.value, [0.75, 0.25], atol=1e-12)
    np.testing.assert_allclose(found.high - found.low, 0, atol=1e-12, err_msg="all images were annotated")


def test_quantiles_of_students_t() -> None:
    # Printed in every table of the distribution.
    found = t_quantiles(np.array([1.0, 2, 5, 10, 30, 120, np.inf]))
    np.testing.assert_allclose(found, [12.7062, 4.30265, 2.57058, 2.22814, 2.04227, 1.97993, 1.95996], atol=1e-4)


def test_what_n_images_without_an_error_can_have_missed() -> None:
    one = Design(np.zeros(300, np.int64), np.array([1e6]))
    assert unseen_share(one, 0.025) == pytest.approx(1 - 0.025 ** (1 / 300), abs=1e-9)
    proportional = Design(np.repeat([0, 1], [200, 100]), np.array([2e6, 1e6]))
    assert unseen_share(proportional, 0.025) == pytest.approx(1 - 0.025 ** (1 / 300), abs=1e-9)
    thin = Design(np.repeat([0, 1], [290, 10]), np.array([1e6, 1e6]))
    assert unseen_share(thin, 0.025) == pytest.approx(0.5 * (1 - 0.025 ** (1 / 10)), rel=0.02)
    assert unseen_share(Design(np.zeros(5, np.int64), np.array([5.0])), 0.025) == 0, "nothing was left out"


def test_a_sample_without_any_error_has_an_interval() -> None:
    shares = np.tile([0.6, 0.4, 0.0], (500, 1))
    images = Images(shares, shares, np.full(500, 0.9), np.zeros(500, np.int64))
    planned = plan(images, 50)
    found = planned.estimate(next(planned.samples(1, 0)))
    assert found.widened.all()
    missed = 1 - 0.025 ** (1 / 50)
    np.testing.assert_allclose(found.low, [0.6 - missed, 0.4 - missed, 0], atol=1e-3)
    np.testing.assert_allclose(found.high, [0.6 + missed, 0.4 + missed, missed], atol=1e-3)


def test_strata_with_a_single_unit_join_the_one_before() -> None:
    stratum, sizes = merged(np.array([0, 0, 1, 2, 2]), np.array([10.0, 20, 30, 1]))
    assert (stratum.tolist(), sizes.tolist()) == ([0, 0, 1, 1, 1], [10, 51])
    stratum, sizes = merged(np.array([0, 1, 1]), np.array([1.0, 20]))
    assert (stratum.tolist(), sizes.tolist()) == ([0, 1, 1], [1, 20]), "one of one is all there is"
    stratum, sizes = merged(np.array([1, 1, 3]), np.array([5.0, 20, 0, 7]))
    assert (stratum.tolist(), sizes.tolist()) == ([0, 0, 0], [32])
    stratum, sizes = merged(np.array([0, 0, 1]), np.array([5.0, 20]))
    assert (stratum.tolist(), sizes.tolist()) == ([0, 0, 0], [25])


def test_more_images_that_halve_an_interval_do() -> None:
    images = two_classes()
    planned = plan(images, 100)
    found = planned.estimate(next(planned.samples(1, 0)))
    more = plan(images, round(100 * float(found.factor[0])))
    wide = found.high[0] - found.low[0]
    widths = [(again.high - again.low)[0] for places in more.samples(20, 1) for again in [more.estimate(places)]]
    assert np.mean(widths) == pytest.approx(wide / 2, rel=0.2)


def two_classes() -> Images:
    random = np.random.default_rng(0)
    truth = random.uniform(0.2, 0.8, 5000)
    model = np.clip(truth + random.normal(0, 0.1, 5000), 0, 1)
    both = [np.stack([share, 1 - share], 1) for share in (truth, model)]
    return Images(both[0], both[1], random.uniform(0.7, 1, 5000), np.zeros(5000, np.int64))


def test_accuracies_are_those_of_olofsson_et_al() -> None:
    design, sample, _ = olofsson_sample()
    hits = sample.truth * sample.model
    agreed = Agreed(sample.pixels, hits.sum(axis=1), hits, sample.model, sample.truth)
    weights, taken = OLOFSSON_PIXELS / 1e7, OLOFSSON.sum(axis=1)
    users = np.diagonal(OLOFSSON) / taken
    joint = weights[:, None] * OLOFSSON / taken[:, None]
    found = class_accuracy(design, agreed, seed=0)
    np.testing.assert_allclose(found["precision"].value, users, atol=1e-9)
    np.testing.assert_allclose(found["recall"].value, np.diagonal(joint) / joint.sum(axis=0), atol=1e-9)
    overall = pixel_accuracy(design, agreed, seed=0)
    assert overall.value[0] == pytest.approx(np.diagonal(joint).sum(), abs=1e-9)
    # Equation 5, on the logit scale: the interval is that of the printed standard error.
    error = np.sqrt((weights**2 * users * (1 - users) / (taken - 1)).sum())
    assert overall.high[0] - overall.low[0] == pytest.approx(2 * 1.97 * error, rel=0.02)
    assert [round(float(value), 2) for value in (*found["precision"].value, overall.value[0])] == [
        0.88, 0.73, 0.93, 0.96, 0.95
    ]  # fmt: skip
    assert [round(float(value), 2) for value in found["recall"].value] == [0.75, 0.85, 0.93, 0.96]
    assert overall.boot_low[0] == pytest.approx(overall.low[0], abs=0.005)
    assert overall.boot_high[0] == pytest.approx(overall.high[0], abs=0.005)
