"""The rule of promotion: better by a margin, no class lost, and never by comparing what cannot be compared."""

import re
from pathlib import Path

import boto3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_core import LabelSet, resolve_settings
from fcn_core.metrics import ConfusionMatrix, Scores
from pipeline.errors import InputError
from pipeline.evaluation.files import EvaluationRecord, images_table, write_evaluation
from pipeline.evaluation.promotion import Verdict, compare, compare_evaluations
from pipeline.models.origin import ModelOrigin
from pipeline.models.registry import open_registry
from pipeline.storage.opening import open_store
from tests.samples import model

LABELS = LabelSet(name="three", names=("sky", "road", "pole"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def scores(*per_class: float | None, pixels: int = 1000) -> Scores:
    present = [value for value in per_class if value is not None]
    mean = sum(present) / len(present) if present else None
    return Scores(
        pixel_accuracy=mean, mean_accuracy=mean, mean_iou=mean, frequency_weighted_iou=mean, per_class_iou=per_class,
        pixels=pixels,
    )  # fmt: skip


def judge(champion: Scores | None, challenger: Scores, margin: float = 0.01, class_limit: float = 0.05) -> Verdict:
    return compare(champion, challenger, LABELS, margin, class_limit)


def test_better_by_the_margin_with_no_class_lost_is_promoted() -> None:
    verdict = judge(scores(0.9, 0.8, 0.1), scores(0.9, 0.78, 0.2))
    assert verdict.promote
    assert verdict.reason == (
        "mean IoU 0.6267 against the champion's 0.6000 is +0.0267, and no class falls by more than 0.05"
    )
    assert [(row.name, row.difference, row.falls) for row in verdict.rows] == [
        ("sky", 0.0, False),
        ("road", -0.02, False),
        ("pole", 0.1, False),
    ]


def test_better_by_less_than_the_margin_is_not() -> None:
    verdict = judge(scores(0.9, 0.8, 0.1), scores(0.9, 0.8, 0.12))
    assert not verdict.promote
    assert verdict.reason.endswith("is +0.0067, but a gain of 0.01 is asked for")


def test_a_class_that_falls_too_far_outweighs_a_better_mean() -> None:
    verdict = judge(scores(0.5, 0.8, 0.2), scores(0.9, 0.9, 0.1))
    assert not verdict.promote
    assert verdict.reason.endswith("but one class falls by more than 0.05 (pole -0.1000)")
    assert [row.falls for row in verdict.rows] == [False, False, True]
    verdict = judge(scores(0.9, 0.8, 0.4), scores(0.5, 0.6, 0.1))
    assert verdict.reason.endswith(
        "a gain of 0.01 is asked for and 3 classes fall by more than 0.05 (sky -0.4000, pole -0.3000, road -0.2000)"
    )


def test_differences_equal_to_the_limits_are_allowed_whatever_floats_make_of_them() -> None:
    assert 0.29 - 0.28 < 0.01, "as floats compute"
    assert judge(scores(0.28, 0.28, 0.28), scores(0.29, 0.29, 0.29), margin=0.01).promote
    assert judge(scores(0.2, 0.2, 0.3), scores(0.5, 0.5, 0.25), class_limit=0.05).promote


def test_a_refusal_names_the_class_that_did_it_and_shows_a_difference_that_is_there() -> None:
    verdict = judge(scores(0.5, 0.5, 0.5), scores(0.51, 0.5, 0.4899999), margin=0)
    assert not verdict.promote
    name = verdict.rows[2].name
    assert f"{name} lost most (-0.0100)" in verdict.reason
    assert "-0.00000003" in verdict.reason
    promoted = judge(scores(0.5, 0.5, 0.5), scores(0.5, 0.5, 0.50001), margin=0)
    assert promoted.promote
    assert "+0.0000033" in promoted.reason


def test_the_same_scores_are_no_gain_even_with_no_margin() -> None:
    assert not judge(scores(0.5, 0.5, 0.5), scores(0.5, 0.5, 0.5), margin=0).promote
    assert judge(scores(0.5, 0.5, 0.5), scores(0.5, 0.5, 0.50001), margin=0).promote


def test_without_a_champion_any_score_wins_and_no_score_does_not() -> None:
    verdict = judge(None, scores(0.1, 0.0, None))
    assert verdict.promote
    assert "no champion yet" in verdict.reason
    assert [row.champion for row in verdict.rows] == [None] * 3
    assert not judge(None, scores(None, None, None, pixels=0)).promote
    assert not judge(scores(None, None, None, pixels=0), scores(None, None, None, pixels=0)).promote


def test_a_nan_is_never_better_and_never_harmless() -> None:
    nan = float("nan")
    assert not judge(None, scores(nan, 0.5, 0.5)).promote
    assert not judge(scores(nan, 0.5, 0.5), scores(0.9, 0.9, 0.9)).promote
    harmed = scores(0.9, 0.9, 0.9).model_copy(update={"per_class_iou": (0.9, 0.9, nan)})
    assert not judge(scores(0.5, 0.5, 0.5), harmed).promote


def test_a_class_that_only_the_prediction_has_counts_through_the_mean_alone() -> None:
    verdict = judge(scores(0.6, 0.6, None), scores(0.9, 0.9, 0.0), margin=0)
    assert [row.difference for row in verdict.rows] == [0.3, 0.3, None]
    assert not verdict.promote, "false alarms are in the mean already"
    assert judge(scores(0.6, 0.6, 0.0), scores(0.6, 0.6, None)).promote


def evaluation(dataset: str, split: str, examples_digest: str, *per_class: float) -> EvaluationRecord:
    return EvaluationRecord(
        model=ModelOrigin(asked="m", uri="m", model_id="m"),
        model_id="m",
        params_id="p",
        settings=resolve_settings(device="cpu"),
        dataset=dataset,
        split=split,
        classes=LABELS.names,
        examples=3,
        examples_digest=examples_digest,
        scores=scores(*per_class),
        confusion=((0, 0, 0),) * 3,
    )


def test_evaluations_of_other_examples_are_refused_and_a_moved_data_set_is_not() -> None:
    champion = evaluation("s3://data/camvid", "val", "5d41402abc4b2a76", 0.5, 0.5, 0.5)
    moved = evaluation("/mnt/camvid", "val", "5d41402abc4b2a76", 0.9, 0.9, 0.9)
    assert compare_evaluations(champion, moved, LABELS, 0.01, 0.05).promote
    assert compare_evaluations(None, moved, LABELS, 0.01, 0.05).promote
    grown = evaluation("s3://data/camvid", "val", "0000000000000000", 0.9, 0.9, 0.9)
    with pytest.raises(InputError, match=r"digest 5d41402abc4b2a76.*digest 0000000000000000.*on the same split"):
        compare_evaluations(champion, grown, LABELS, 0.01, 0.05)
    renamed = moved.model_copy(update={"classes": ("sky", "road", "column")})
    with pytest.raises(InputError, match="evaluate both on the same split"):
        compare_evaluations(champion, renamed, LABELS, 0.01, 0.05)


def confused(*rows: tuple[int, ...]) -> EvaluationRecord:
    """An evaluation with this confusion matrix, of truths by predictions."""
    matrix = ConfusionMatrix(3)
    matrix.counts += np.array(rows, np.int64)
    found = evaluation("d", "val", "0" * 16, 0.0, 0.0, 0.0)
    return found.model_copy(update={"scores": matrix.scores(), "confusion": rows})


ONE_CLASS = ((800, 0, 0), (150, 0, 0), (50, 0, 0))
LITTLE = ((800, 0, 0), (140, 10, 0), (50, 0, 0))


def test_a_first_champion_must_be_more_than_one_that_calls_every_pixel_the_commonest_class() -> None:
    verdict = compare_evaluations(None, confused(*ONE_CLASS), LABELS, 0, 1)
    assert not verdict.promote
    assert f"calls every pixel {LABELS.names[0]} (0.2667)" in verdict.reason
    assert compare_evaluations(None, confused(*LITTLE), LABELS, 0, 1).promote
    worse = confused((0, 800, 0), (0, 150, 0), (0, 50, 0))
    assert not compare_evaluations(None, worse, LABELS, 0, 1).promote


def test_a_least_mean_iou_holds_for_every_promotion() -> None:
    score = confused(*LITTLE).scores.mean_iou
    assert score is not None
    assert compare_evaluations(None, confused(*LITTLE), LABELS, 0, 1, score).promote
    for champion in (None, confused(*ONE_CLASS)):
        verdict = compare_evaluations(champion, confused(*LITTLE), LABELS, 0, 1, 0.5)
        assert not verdict.promote
        assert "is below the min_mean_iou of 0.5000" in verdict.reason
    assert compare_evaluations(None, confused(*ONE_CLASS), LABELS, 0, 1, 0.1).promote, "whoever asks for less gets it"


def test_scores_that_give_away_different_splits_are_refused() -> None:
    with pytest.raises(InputError, match="1,000 annotated pixels, the challenger on 999"):
        judge(scores(0.5, 0.5, 0.5), scores(0.9, 0.9, 0.9, pixels=999))
    with pytest.raises(InputError, match="class pole was there for the challenger only"):
        judge(scores(0.5, 0.5, None), scores(0.9, 0.9, 0.9))


def test_scores_of_other_classes_and_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="the challenger has scores of 2 classes"):
        judge(scores(0.5, 0.5, 0.5), scores(0.9, 0.9))
    with pytest.raises(InputError, match="the champion has scores of 4 classes"):
        judge(scores(0.5, 0.5, 0.5, 0.5), scores(0.9, 0.9, 0.9))
    for margin, limit in ((-0.1, 0.1), (0.1, -0.1), (1.5, 0.1), (float("nan"), 0.1), (0.1, float("nan"))):
        with pytest.raises(InputError, match=r"choose it there"):
            judge(None, scores(0.9, 0.9, 0.9), margin, limit)


@st.composite
def masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A truth and two predictions of it."""
    size = draw(st.integers(0, 40))
    classes = [st.sampled_from([0, 1, 2, 255]), st.integers(0, 2), st.integers(0, 2)]
    return tuple(np.array(draw(st.lists(each, min_size=size, max_size=size)), dtype=np.uint8) for each in classes)


@given(masks(), st.floats(0, 1), st.floats(0, 1))
def test_the_verdict_follows_from_the_rows(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray], margin: float, limit: float
) -> None:
    truth, *predictions = drawn
    measured = []
    for prediction in predictions:
        matrix = ConfusionMatrix(3)
        matrix.update(truth, prediction)
        measured.append(matrix.scores())
    champion, challenger = measured
    verdict = compare(champion, challenger, LABELS, margin, limit)  # two predictions of one truth are never refused
    assert "\n" not in verdict.reason
    back = compare(challenger, champion, LABELS, margin, limit)
    assert not (verdict.promote and back.promote), "each better than the other"
    if verdict.promote:
        assert challenger.mean_iou > champion.mean_iou
        assert challenger.mean_iou - champion.mean_iou >= margin - 1e-8
        for old, new in zip(champion.per_class_iou, challenger.per_class_iou, strict=True):
            assert old is None or new is None or old - new <= limit + 1e-8
    elif champion.mean_iou is not None and challenger.mean_iou > champion.mean_iou + margin + 1e-8:
        assert any(row.falls for row in verdict.rows)


def test_the_page_of_the_registry_promotes_as_it_says(s3_endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = "company-of-this-test"  # others use the page's own bucket
    boto3.client("s3").create_bucket(Bucket=bucket)
    bundles = [model(LABELS, seed=seed) for seed in range(2)]
    registry = open_registry(f"s3://{bucket}/registry")
    old, new = (registry.publish("road", bundle) for bundle in bundles)
    registry.promote("road", old, "the first")
    for place, version, level in (("champion", old, 0.5), ("challenger", new, 0.6)):
        record = evaluation("s3://data/camvid", "val", "5d41402abc4b2a76", level, level, level)
        output = open_store(f"s3://{bucket}/scores/{place}")
        write_evaluation(output, record.model_copy(update={"model_id": version}), images_table([]), None)
    page = (Path(__file__).parents[3] / "docs" / "registry.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(code.replace("s3://company/", f"s3://{bucket}/"), "registry.md", "exec"), {})
    assert "is +0.1000, and no class falls" in capsys.readouterr().out
    champion = registry.champion("road")
    assert champion is not None
    assert (champion.number, champion.version, champion.previous) == (2, new, old)
    assert champion.scores is not None
    assert champion.scores["mean_iou"] == pytest.approx(0.6)
