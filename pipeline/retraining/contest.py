"""A challenger held against a champion: what was compared, and the verdict."""

from dataclasses import dataclass

from pipeline.evaluation.files import EvaluationRecord
from pipeline.evaluation.promotion import Verdict
from pipeline.models.registry import Champion


@dataclass(frozen=True)
class Contest:
    """A challenger against the champion of the moment, both scored on the same images of `split`.

    `version` is what the challenger is called in the registry, `champion` the promotion that it was held against, None
    if there was none.
    """

    verdict: Verdict
    split: str
    version: str
    challenger_scores: EvaluationRecord
    champion: Champion | None
    champion_scores: EvaluationRecord | None
