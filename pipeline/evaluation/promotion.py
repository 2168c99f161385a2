"""Whether a new model is better than the champion, by a rule that is written down before anybody looks at the scores.

Promote when mean IoU is better by a margin and no class falls by more than a limit, both measured on the same split.
The one thing to know: scores of different splits or data sets are refused, never compared.
"""

from dataclasses import dataclass, replace

import numpy as np

from fcn_core import LabelSet
from fcn_core.metrics import Scores
from pipeline.errors import InputError
from pipeline.evaluation.files import EvaluationRecord
from pipeline.numbers import differing, fixed

_DIGITS = 9
"""Differences are rounded to so many: 0.29 - 0.28 is less than 0.01 in floating point."""

_CLASSES_IN_REASONS = 3

_REMEDY = "evaluate both on the same split"


@dataclass(frozen=True, slots=True)
class ClassRow:
    """IoU of one class, 0..1; None where the class is neither in the truth nor in the prediction.

    `difference` is challenger less champion, None where one of them has no score; `falls` says that it falls by more
    than the limit.
    """

    name: str
    champion: float | None
    challenger: float | None
    difference: float | None
    falls: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to promote, why in one sentence, and the numbers behind it. `difference` is that of mean IoU."""

    promote: bool
    reason: str
    champion: float | None
    challenger: float | None
    difference: float | None
    rows: tuple[ClassRow, ...]


def compare_evaluations(
    champion: EvaluationRecord | None,
    challenger: EvaluationRecord,
    labels: LabelSet,
    margin: float,
    class_limit: float,
    min_mean_iou: float | None = None,
) -> Verdict:
    """As `compare`, of whole evaluations, which prove what they were made on.

    `min_mean_iou` is the least that a model must have to be promoted. Without one, a first champion must have more
    than a model that gives every pixel the commonest class.

    Raises InputError also when they are not of the same images against the same truth, with the same classes.
    """
    if champion is not None and not champion.same_examples(challenger):
        raise InputError(
            f"the champion was scored on {_made_on(champion)}, the challenger on {_made_on(challenger)}; {_REMEDY}"
        )
    verdict = compare(champion.scores if champion else None, challenger.scores, labels, margin, class_limit)
    if not verdict.promote:
        return verdict
    refused = _below_floor(challenger, champion is None, min_mean_iou)
    return verdict if refused is None else replace(verdict, promote=False, reason=refused)


def _below_floor(challenger: EvaluationRecord, first: bool, min_mean_iou: float | None) -> str | None:
    """Why a model is too bad to be promoted, whatever it is better than; None if it is not."""
    score = challenger.scores.mean_iou or 0.0
    if min_mean_iou is not None:
        if score >= min_mean_iou:
            return None
        shown, least = differing(score, min_mean_iou, fixed)
        return f"mean IoU {shown} is below the min_mean_iou of {least}"
    truths = challenger.truths
    if not first or not truths.any():
        return None
    commonest = int(truths.argmax())
    floor = float(truths[commonest] / truths.sum() / np.count_nonzero(truths))
    if round(score - floor, _DIGITS) > 0:
        return None
    return (
        f"there is no champion yet, but mean IoU {fixed(score)} is no more than a model has that calls every pixel "
        f"{challenger.classes[commonest]} ({fixed(floor)}); train longer, or with a lower learning rate"
    )


def compare(
    champion: Scores | None, challenger: Scores, labels: LabelSet, margin: float, class_limit: float
) -> Verdict:
    """Judge a challenger against the champion; without a champion, any challenger that has a score wins.

    `margin` is the least gain of mean IoU (0: any gain at all), `class_limit` the largest fall of a class's IoU, both
    in 0..1; a difference equal to either is allowed. Raises InputError for scores that cannot have been measured on
    the same split with the same classes, as far as the numbers tell; `compare_evaluations` proves it.
    """
    for option, value in (("margin", margin), ("class limit", class_limit)):
        if not 0 <= value <= 1:
            raise InputError(f"the {option} is {value}, but differences of IoU are within 0..1; choose it there")
    for whose, scores in (("champion", champion), ("challenger", challenger)):
        if scores is not None and len(scores.per_class_iou) != labels.num_classes:
            raise InputError(
                f"the {whose} has scores of {len(scores.per_class_iou)} classes, but label set {labels.name} has "
                f"{labels.num_classes}; evaluate it with its own label set"
            )
    if champion is not None:
        _refuse_different_splits(champion, challenger, labels)

    rows = tuple(
        _row(name, champion.per_class_iou[index] if champion else None, challenger.per_class_iou[index], class_limit)
        for index, name in enumerate(labels.names)
    )
    old, new = champion.mean_iou if champion else None, challenger.mean_iou
    difference = _difference(old, new)
    promote, reason = _judge(champion, new, old, difference, rows, margin, class_limit)
    return Verdict(promote, reason, old, new, difference, rows)


def _judge(
    champion: Scores | None,
    new: float | None,
    old: float | None,
    difference: float | None,
    rows: tuple[ClassRow, ...],
    margin: float,
    class_limit: float,
) -> tuple[bool, str]:
    if new is None or not 0 <= new <= 1:
        return False, f"the challenger has no mean IoU ({new}), as when a split holds no labelled pixel"
    if champion is None:
        return True, f"there is no champion yet, and the challenger has mean IoU {fixed(new)}"
    if old is None or difference is None:
        return False, "the champion has no score on this split, so nothing can be said of the challenger"
    shown_new, shown_old = differing(new, old, fixed)
    against = f"mean IoU {shown_new} against the champion's {shown_old} is {fixed(difference, sign='+')}"
    # Written so that a NaN is never better and never harmless.
    better = difference > 0 and difference >= round(margin, _DIGITS)
    falling = sorted((row for row in rows if row.falls), key=lambda row: row.difference or 0.0)
    if better and not falling:
        return True, f"{against}, and no class falls by more than {class_limit:g}"
    reasons = [] if better else [f"a gain of {margin:g} is asked for" if margin else "a gain is asked for"]
    lower = [row for row in rows if row.difference is not None and row.difference < 0]
    lost = min(lower, key=lambda row: row.difference or 0.0, default=None)
    if lost and not falling:
        reasons.append(f"{lost.name} lost most ({fixed(lost.difference or 0.0, sign='+')})")
    if falling:
        worst = ", ".join(
            f"{row.name} {fixed(row.difference or 0.0, sign='+')}" for row in falling[:_CLASSES_IN_REASONS]
        )
        more = len(falling) - _CLASSES_IN_REASONS
        classes = f"{len(falling)} classes fall" if len(falling) > 1 else "one class falls"
        reasons.append(f"{classes} by more than {class_limit:g} ({worst}{f' and {more} more' if more > 0 else ''})")
    return False, f"{against}, but {' and '.join(reasons)}"


def _row(name: str, champion: float | None, challenger: float | None, class_limit: float) -> ClassRow:
    difference = _difference(champion, challenger)
    falls = difference is not None and not difference >= -round(class_limit, _DIGITS)
    return ClassRow(name, champion, challenger, difference, falls)


def _difference(champion: float | None, challenger: float | None) -> float | None:
    return None if champion is None or challenger is None else round(challenger - champion, _DIGITS)


def _refuse_different_splits(champion: Scores, challenger: Scores, labels: LabelSet) -> None:
    if champion.pixels != challenger.pixels:
        raise InputError(
            f"the champion was scored on {champion.pixels:,} annotated pixels, the challenger on "
            f"{challenger.pixels:,}, so these are different splits; {_REMEDY}"
        )
    for name, old, new in zip(labels.names, champion.per_class_iou, challenger.per_class_iou, strict=True):
        # A class of the truth always has a score; one that only the prediction has scores 0.
        if (old is None and new) or (new is None and old):
            raise InputError(
                f"class {name} was there for the {'challenger' if new else 'champion'} only, so these are different "
                f"splits; {_REMEDY}"
            )


def _made_on(record: EvaluationRecord) -> str:
    return (
        f"split {record.split} of {record.dataset} ({record.examples} images, {len(record.classes)} classes, "
        f"digest {record.examples_digest})"
    )
