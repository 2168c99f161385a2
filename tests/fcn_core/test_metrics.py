import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcn_core.errors import LabelError
from fcn_core.metrics import ConfusionMatrix

CLASSES = 4
truths = arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 3, 255]))
predictions = arrays(np.uint8, (6, 5), elements=st.integers(0, CLASSES - 1))


def matrix_of(target: np.ndarray, mask: np.ndarray) -> ConfusionMatrix:
    matrix = ConfusionMatrix(CLASSES)
    matrix.update(target, mask)
    return matrix


@given(truths, predictions)
def test_scores_are_those_of_their_definitions(target, mask):
    """Counted with sets of pixels, as the paper defines n_ij and t_i."""
    scores = matrix_of(target, mask).scores()
    valid = target != 255
    ious, accuracies, weighted = [], [], 0.0
    for k in range(CLASSES):
        true, found = (target == k) & valid, (mask == k) & valid
        union = (true | found).sum()
        expected = (true & found).sum() / union if union else None
        assert scores.per_class_iu[k] == (None if expected is None else pytest.approx(expected))
        if expected is not None:
            ious.append(expected)
            weighted += expected * true.sum()
        if true.any():
            accuracies.append((true & found).sum() / true.sum())
    assert scores.pixels == valid.sum()
    if valid.any():
        assert scores.mean_iu == pytest.approx(np.mean(ious))
        assert scores.mean_accuracy == pytest.approx(np.mean(accuracies))
        assert scores.frequency_weighted_iu == pytest.approx(weighted / valid.sum())
        assert scores.pixel_accuracy == pytest.approx((target == mask)[valid].mean())


@given(truths, predictions, truths, predictions)
def test_matrices_of_parts_add_up_to_the_whole(target_a, mask_a, target_b, mask_b):
    parts = matrix_of(target_a, mask_a)
    parts.add(matrix_of(target_b, mask_b))
    whole = matrix_of(np.stack([target_a, target_b]), np.stack([mask_a, mask_b]))
    assert (parts.counts == whole.counts).all()


def test_the_right_mask_scores_one():
    mask = np.arange(4, dtype=np.uint8).repeat(3).reshape(4, 3)
    scores = matrix_of(mask, mask).scores()
    assert (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iu, scores.frequency_weighted_iu) == (
        1,
        1,
        1,
        1,
    )


def test_an_absent_class_has_no_score_and_does_not_pull_the_mean_down():
    mask = np.zeros((2, 2), dtype=np.uint8)
    scores = matrix_of(mask, mask).scores()
    assert scores.per_class_iu == (1.0, None, None, None)
    assert scores.mean_iu == 1


def test_nothing_labelled_scores_nothing():
    scores = matrix_of(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)).scores()
    assert (scores.pixels, scores.mean_iu, scores.pixel_accuracy) == (0, None, None)


def test_counts_stay_exact_beyond_what_float32_can_count():
    matrix = matrix_of(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    matrix.counts[0, 0] = 2**40
    matrix.update(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8))
    assert matrix.counts.sum() == 2**40 + 1


@pytest.mark.parametrize(
    ("target", "mask", "what"), [(7, 0, "truth holds class 7"), (0, 9, "prediction holds class 9")]
)
def test_an_unknown_class_is_refused_and_nothing_is_counted(target, mask, what):
    matrix = ConfusionMatrix(CLASSES)
    with pytest.raises(LabelError, match=what):
        matrix.update(np.full((2, 2), target, np.uint8), np.full((2, 2), mask, np.uint8))
    assert not matrix.counts.any()


def test_unequal_sizes_are_refused():
    with pytest.raises(LabelError, match="predict at the size"):
        matrix_of(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_matrices_of_other_classes_are_not_added():
    with pytest.raises(LabelError, match="5 classes"):
        ConfusionMatrix(CLASSES).add(ConfusionMatrix(5))
