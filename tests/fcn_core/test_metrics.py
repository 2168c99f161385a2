import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from fcn_core import metrics
from fcn_core.errors import LabelError
from fcn_core.metrics import ConfusionMatrix, Scores

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
        assert scores.per_class_iou[k] == (None if expected is None else pytest.approx(expected))
        if expected is not None:
            ious.append(expected)
            weighted += expected * true.sum()
        if true.any():
            accuracies.append((true & found).sum() / true.sum())
    assert scores.pixels == valid.sum()
    if valid.any():
        assert scores.mean_iou == pytest.approx(np.mean(ious))
        assert scores.mean_accuracy == pytest.approx(np.mean(accuracies))
        assert scores.frequency_weighted_iou == pytest.approx(weighted / valid.sum())
        assert scores.pixel_accuracy == pytest.approx((target == mask)[valid].mean())


def authors_scores(hist: np.ndarray) -> tuple[float, float, float, float]:
    """Pixel accuracy, mean accuracy, mean IoU, frequency-weighted IoU as in the authors' score.py, with nanmean."""
    with np.errstate(invalid="ignore", divide="ignore"):
        right, truth = np.diag(hist), hist.sum(1)
        iou = right / (truth + hist.sum(0) - right)
        frequency = truth / hist.sum()
        some = frequency > 0
        return (
            right.sum() / hist.sum(),
            np.nanmean(right / truth),
            np.nanmean(iou),
            (frequency[some] * iou[some]).sum(),
        )


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Counts int64 [C, C], some classes never labelled, some never predicted, some neither."""
    classes = draw(st.integers(1, 21))
    counts = draw(arrays(np.int64, (classes, classes), elements=st.integers(0, 10**12) | st.just(0)))
    for axis in (0, 1):
        counts[(slice(None),) * axis + (draw(arrays(np.bool_, classes)),)] = 0
    return counts


def scores_of(counts: np.ndarray) -> Scores:
    matrix = ConfusionMatrix(len(counts))
    matrix.counts += counts
    return matrix.scores()


@given(matrices())
def test_scores_are_those_of_the_authors_formula(counts):
    scores = scores_of(counts)
    if not counts.any():
        assert (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iou) == (None, None, None)
        return
    found = (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iou, scores.frequency_weighted_iou)
    assert found == pytest.approx(authors_scores(counts), rel=1e-12)


@given(truths, predictions)
def test_scores_are_those_of_torchmetrics(target, mask):
    scores = matrix_of(target, mask).scores()
    options = {"num_classes": CLASSES, "ignore_index": 255}
    pair = torch.from_numpy(mask).long(), torch.from_numpy(target).long()

    def theirs(metric: type, average: str) -> np.ndarray:
        return metric(average=average, **options)(*pair).double().numpy()

    counts = MulticlassConfusionMatrix(**options)(*pair).numpy()
    assert (matrix_of(target, mask).counts == counts).all()
    if not counts.any():
        return
    close = {"rel": 1e-6, "abs": 1e-7}  # torchmetrics computes in float32
    assert scores.pixel_accuracy == pytest.approx(float(theirs(MulticlassAccuracy, "micro")), **close)
    assert scores.mean_iou == pytest.approx(float(theirs(MulticlassJaccardIndex, "macro")), **close)
    assert scores.frequency_weighted_iou == pytest.approx(float(theirs(MulticlassJaccardIndex, "weighted")), **close)
    for ours, per_class in (
        (scores.per_class_iou, theirs(MulticlassJaccardIndex, "none")),
        (scores.per_class_accuracy, theirs(MulticlassAccuracy, "none")),
    ):
        assert [0.0 if value is None else value for value in ours] == pytest.approx(per_class.tolist(), **close)
    # torchmetrics' own mean accuracy counts a class that is only ever predicted as 0; the authors leave it out.
    labelled = counts.sum(1) > 0
    assert scores.mean_accuracy == pytest.approx(theirs(MulticlassAccuracy, "none")[labelled].mean(), **close)


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.integers(0, 3)), st.integers(1, 7)
)
def test_counts_do_not_depend_on_dtype_layout_or_how_many_pixels_are_taken_at_once(target, at_once):
    mask = target[..., ::-1]
    whole = matrix_of(target, mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_PIXELS_AT_ONCE", at_once)
        for dtype in (np.uint8, np.int64, np.int16):
            assert (matrix_of(target.astype(dtype), mask.astype(dtype)).counts == whole.counts).all()
    assert (matrix_of(target.T, mask.T).counts == whole.counts).all()


def test_a_class_that_is_only_predicted_has_iou_zero_and_no_accuracy():
    scores = matrix_of(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 2]], np.uint8)).scores()
    assert scores.per_class_iou == (0.75, None, 0.0, None)
    assert scores.per_class_accuracy == (0.75, None, None, None)
    assert (scores.mean_iou, scores.mean_accuracy) == (0.375, 0.75)


def test_what_is_predicted_where_nothing_is_labelled_does_not_matter():
    matrix = matrix_of(np.array([[0, 255, 255]], np.uint8), np.array([[0, 3, 200]], np.uint8))
    assert matrix.counts.sum() == matrix.counts[0, 0] == 1


@given(truths, predictions)
def test_a_matrix_tells_intersections_and_unions_of_each_class(target, mask):
    matrix = matrix_of(target, mask)
    valid = target != 255
    for k in range(CLASSES):
        true, found = (target == k) & valid, (mask == k) & valid
        assert matrix.truths[k] == true.sum()
        assert matrix.intersections[k] == (true & found).sum()
        assert matrix.unions[k] == (true | found).sum()


@given(truths, predictions, truths, predictions)
def test_matrices_of_parts_add_up_to_the_whole(target_a, mask_a, target_b, mask_b):
    parts = matrix_of(target_a, mask_a)
    parts.add(matrix_of(target_b, mask_b))
    whole = matrix_of(np.stack([target_a, target_b]), np.stack([mask_a, mask_b]))
    assert (parts.counts == whole.counts).all()


def test_the_right_mask_scores_one():
    mask = np.arange(4, dtype=np.uint8).repeat(3).reshape(4, 3)
    scores = matrix_of(mask, mask).scores()
    assert (scores.pixel_accuracy, scores.mean_accuracy, scores.mean_iou, scores.frequency_weighted_iou) == (
        1,
        1,
        1,
        1,
    )


def test_an_absent_class_has_no_score_and_does_not_pull_the_mean_down():
    mask = np.zeros((2, 2), dtype=np.uint8)
    scores = matrix_of(mask, mask).scores()
    assert scores.per_class_iou == (1.0, None, None, None)
    assert scores.mean_iou == 1


def test_nothing_labelled_scores_nothing():
    scores = matrix_of(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8)).scores()
    assert (scores.pixels, scores.mean_iou, scores.pixel_accuracy) == (0, None, None)


def test_counts_stay_exact_beyond_what_float32_can_count():
    matrix = matrix_of(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))
    matrix.counts[0, 0] = 2**40
    matrix.update(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8))
    assert matrix.counts.sum() == 2**40 + 1


@pytest.mark.parametrize(
    ("target", "mask", "what"),
    [
        (7, 0, "truth holds class 7"),
        (0, 9, "prediction holds class 9"),
        (0, 254, "prediction holds class 254"),
        (-1, 0, "truth holds class -1"),
        (0, 300, "prediction holds class 300"),
    ],
)
def test_an_unknown_class_is_refused_and_nothing_is_counted(target, mask, what):
    matrix = ConfusionMatrix(CLASSES)
    arrays_of = [np.full((2, 2), value, np.uint8 if 0 <= value < 256 else np.int64) for value in (target, mask)]
    with pytest.raises(LabelError, match=what):
        matrix.update(*arrays_of)
    assert not matrix.counts.any()


@given(truths, arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 3, 255])))
def test_a_void_prediction_is_a_miss_of_its_class_and_of_nothing_else(target, mask):
    matrix = matrix_of(target, mask)
    valid = target != 255
    for k in range(CLASSES):
        true, found = (target == k) & valid, (mask == k) & valid
        assert matrix.truths[k] == true.sum()
        assert matrix.unions[k] == (true | found).sum()
        assert matrix.intersections[k] == (true & found).sum()
        assert matrix.void[k] == (true & (mask == 255)).sum()
    scores = matrix.scores()
    assert scores.pixels == valid.sum()
    if scores.pixels:
        assert scores.pixel_accuracy == pytest.approx((target[valid] == mask[valid]).mean())


def test_void_predictions_of_parts_add_up():
    parts = [matrix_of(np.array([0, 1, 1]), np.array([255, 1, 255])) for _ in range(2)]
    parts[0].add(parts[1])
    assert parts[0].void.tolist() == [2, 2, 0, 0]


def test_unequal_sizes_are_refused():
    with pytest.raises(LabelError, match="predict at the size"):
        matrix_of(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))


def test_matrices_of_other_classes_are_not_added():
    with pytest.raises(LabelError, match="5 classes"):
        ConfusionMatrix(CLASSES).add(ConfusionMatrix(5))


def test_scores_that_version_0_1_wrote_are_read():
    scores = matrix_of(np.array([0, 1, 1]), np.array([0, 1, 0])).scores()
    old = scores.model_dump(mode="json")
    for name in ("mean", "frequency_weighted", "per_class"):
        old[f"{name}_iu"] = old.pop(f"{name}_iou")
    assert Scores.model_validate(old) == scores
