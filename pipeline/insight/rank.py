"""Which images are worth labelling by hand: those that the model knows least about, best candidates first.

Three ways to ask. `confidence`: where the model itself is least sure. `disagreement`: where two models or settings say
different things about the same pixels; neither need know that it is wrong. `rare`: images with classes that few images
have, so that the next training set has more of them. Each can be asked for images that are unlike each other besides
(`pipeline.insight.diverse`): a list of one camera's night says little.
"""

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.insight.agreement import PAIR_COLUMNS, ClassIndex, PairSample, Side, agreements, translate, with_masks
from pipeline.insight.diverse import CANDIDATES, LONGEST, area_vectors, feature_vectors, k_center
from pipeline.insight.shortlist import Shortlist
from pipeline.numbers import percent, score
from pipeline.outputs.current import NEWEST, choose_variant, current_rows, current_variants, recipes
from pipeline.outputs.labels import read_labels
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store

RankBy = Literal["confidence", "disagreement", "rare"]

ORDERS: tuple[str, ...] = get_args(RankBy)

RANKING_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("priority", pa.float64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("confidence", pa.float32()),
        pa.field("mask_key", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ],
    metadata={"fcn_schema": "ranking/2"},
)
"""One row per image, the one most worth labelling first. See docs/insight.md."""

SPECK = 0.001
"""A class counts as visible in an image from this share of its pixels: less is often a stray pixel or two."""

_Keys = frozenset[str]

_COLUMNS = ("key", "etag", "mask_key", "confidence", "recipe", "run_id")


@dataclass(frozen=True, slots=True)
class Ranked:
    """One image: `priority` grows with how much it is worth labelling; `reason` says in words what it stands for."""

    rank: int
    key: str
    etag: str
    priority: float
    reason: str
    confidence: float | None
    mask_key: str
    recipe: str
    run_id: str


@dataclass(frozen=True)
class Ranking:
    """The images, best candidates first, out of how many with a mask; `masks_compared` only for disagreement.

    diversity: of a diverse list, how it was made, in words.
    """

    by: RankBy
    record: RunRecord
    images: int
    ranked: tuple[Ranked, ...]
    masks_compared: int | None = None
    diversity: str | None = None

    def table(self) -> pa.Table:
        """As a table of RANKING_SCHEMA."""
        return pa.Table.from_pylist([asdict(row) for row in self.ranked], schema=RANKING_SCHEMA)


def rank(
    store: Store,
    by: RankBy = "confidence",
    *,
    top: int = 50,
    per_folder: int | None = None,
    recipe: str | None = None,
    against: str | None = None,
    masks: int = 5000,
    diverse: bool = False,
    without: _Keys = frozenset(),
) -> Ranking:
    """The `top` images of an output that are most worth labelling by hand, at most `per_folder` of each folder.

    Only current rows with a mask count. `recipe` says whose masks; default: the current ones. `against` is the other
    recipe for disagreement, which compares the newest recipe; default: the newest other one. At most `masks` pairs of
    masks are compared for it. `diverse`: of the best CANDIDATES x `top`, those that are unlike each other, by features
    where all of them have any, else by the areas of their classes; the list is in the order in which they were chosen.
    Keys in `without` are not chosen.

    Streams: memory is that of the shortlist, for disagreement also some bytes per image. Raises InputError if there is
    nothing to rank.
    """
    if diverse and top > LONGEST:
        raise InputError(f"--diverse chooses up to {LONGEST} images, not {top}; give a smaller --top")
    record = choose_variant(store, recipe)
    shortlist: Shortlist[_Candidate] = Shortlist(top * CANDIDATES if diverse else top, per_folder)
    compared = None
    variant = NEWEST if recipe is None and len(current_variants(store)) > 1 else record.recipe
    if by == "confidence":
        images = _by_confidence(store, variant, shortlist, without)
    elif by == "rare":
        images = _by_rare_class(store, variant, shortlist, without)
    else:
        images, compared = _by_disagreement(store, record, _other(store, record, against), shortlist, masks, without)
    if not images:
        raise InputError(f"{store.uri} has no masks of recipe {record.recipe} to rank; see `fcn runs`")
    best, diversity = shortlist.best(), None
    if diverse:
        best, diversity = _unlike(store, record, variant, best, top)
    ranked = tuple(
        Ranked(place, key, item.etag, score, item.reason, item.confidence, item.mask_key, item.recipe, item.run_id)
        for place, (score, key, item) in enumerate(best, 1)
    )
    return Ranking(by, record, images, ranked, compared, diversity)


_Listed = tuple[float, str, "_Candidate"]


def _unlike(
    store: Store, record: RunRecord, variant: str, listed: list[_Listed], top: int
) -> tuple[list[_Listed], str]:
    """`top` of those listed that are unlike each other, the first of them first, and how they were chosen."""
    vectors, found = feature_vectors(store, record.model_id, [(key, item.etag) for _, key, item in listed])
    if vectors is not None:
        text = f"of the first {len(listed)}, those that are unlike each other by their features"
    else:
        confidence = {key: item.confidence for _, key, item in listed}
        vectors = area_vectors(_rows(store, variant, ["key", "mask_key", "areas"]), confidence, list(confidence))
        text = (
            f"of the first {len(listed)}, those that are unlike each other by the areas of their classes, for "
            f"{found or 'none'} of them have features (`fcn segment --features` writes them)"
        )
    return [listed[place] for place, _ in k_center(vectors, top)], text


@dataclass(frozen=True, slots=True)
class _Candidate:
    etag: str
    reason: str
    confidence: float | None
    mask_key: str
    recipe: str
    run_id: str


def folder_of(key: str) -> str:
    """What the cap counts as one folder: all but the last part of the key."""
    return posixpath.dirname(key)


def _rows(store: Store, variant: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for batch in current_rows(store, variant, columns=columns):
        kept = with_masks(batch)
        if len(kept):
            yield kept


def _offer(
    shortlist: Shortlist[_Candidate], batch: pa.RecordBatch, scores: Any, reason: Callable[[int], str], without: _Keys
) -> None:
    """Offer the rows of `batch` by `scores`, float [rows]; rows that cannot enter are not even looked at."""
    for row in np.flatnonzero(scores >= shortlist.bar).tolist():
        values = {name: batch[name][row].as_py() for name in _COLUMNS}
        key = values.pop("key")
        if key in without:
            continue
        candidate = _Candidate(reason=reason(row), **values)
        shortlist.offer(float(scores[row]), key, folder_of(key), candidate)


def _by_confidence(store: Store, variant: str, shortlist: Shortlist[_Candidate], without: _Keys) -> int:
    images = 0
    for batch in _rows(store, variant, _COLUMNS):
        images += len(batch)
        confidence = batch["confidence"].to_numpy(False).astype(np.float64)

        def reason(row: int, confidence: Any = confidence) -> str:
            return f"confidence {score(confidence[row])}"

        _offer(shortlist, batch, 1 - confidence, reason, without)
    return images


def _by_rare_class(store: Store, variant: str, shortlist: Shortlist[_Candidate], without: _Keys) -> int:
    """An image's rarest class decides (-log2 of the share of images that have it), then how much of it there is."""
    classes = ClassIndex()
    present: Counter[int] = Counter()
    images = 0
    for batch in _rows(store, variant, ["mask_key", "areas"]):
        images += len(batch)
        present.update(dict(enumerate((classes.fractions(batch["areas"]) >= SPECK).sum(axis=0).tolist())))
    if not images:
        return 0
    surprise = np.array([math.log2(images / present[k]) if present[k] else 0.0 for k in range(len(classes.names))])
    no_classes = list(classes.void)
    for batch in _rows(store, variant, [*_COLUMNS, "areas"]):
        shares = classes.fractions(batch["areas"])[:, : len(surprise)]
        shares[:, no_classes] = 0
        worth = np.where(shares >= SPECK, surprise + np.minimum(shares, 1) * 1e-3, 0)
        rarest = worth.argmax(axis=1)

        def reason(row: int, shares: Any = shares, rarest: Any = rarest) -> str:
            number = int(rarest[row])
            return (
                f"{classes.names[number]} covers {percent(shares[row, number])}, visible in "
                f"{percent(present[number] / images)} of the images"
            )

        _offer(shortlist, batch, worth.max(axis=1), reason, without)
    return images


def _by_disagreement(
    store: Store,
    record: RunRecord,
    other: RunRecord,
    shortlist: Shortlist[_Candidate],
    masks: int,
    without: _Keys,
) -> tuple[int, int]:
    classes = ClassIndex()
    theirs = Side(current_rows(store, other.recipe, columns=PAIR_COLUMNS), classes)
    sample = PairSample(masks)
    for batch in current_rows(store, record.recipe, columns=PAIR_COLUMNS):
        for pair in theirs.pairs(batch):
            if pair.key not in without:
                sample.add(pair)
    if not sample.pairs:
        raise InputError(
            f"no image under {store.uri} has masks of both recipe {record.recipe} and {other.recipe}; "
            "label the same images with both models"
        )
    chosen = {pair.key: pair for pair in (*sample.changed(), *sample.random())}
    translation = translate(read_labels(store, other), read_labels(store, record))
    for found in agreements(store, list(chosen.values()), translation):
        pair = found.pair
        candidate = _Candidate(
            pair.etag,
            f"{percent(1 - found.pixels)} of the pixels differ from recipe {other.recipe}, "
            f"mean IoU {score(found.mean_iou, 2)}",
            pair.confidence_b,
            pair.mask_b,
            record.recipe,
            pair.run_b,
        )
        shortlist.offer(1 - found.pixels, pair.key, folder_of(pair.key), candidate)
    return sample.pairs, len(chosen)


def _other(store: Store, record: RunRecord, against: str | None) -> RunRecord:
    if against is not None:
        if against == record.recipe:
            raise InputError(f"--against {against} is the recipe that is ranked; name another")
        return choose_variant(store, against)
    others = [other for name, other in recipes(store).items() if name != record.recipe]
    if not others:
        raise InputError(
            f"{store.uri} holds masks of recipe {record.recipe} alone; disagreement takes two: "
            "label the same images with another model, into the same OUTPUT"
        )
    return others[0]
