"""Annotations that are probably wrong: where a model that has not seen them confidently disagrees.

The one thing to know: a model is wrong in some ways everywhere, an annotator in one image. So what counts is by how
much a confusion of two classes in one image exceeds that same confusion over all images.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fcn_core import LabelSet
from fcn_core.data.datasets import Pair, Pairs, decode_displayed
from fcn_core.data.mask_coding import read_mask
from fcn_core.errors import FcnError
from fcn_core.inference.evaluation import check_classes
from fcn_core.inference.predictor import Outputs, Predictor
from fcn_core.labels import Mask
from fcn_core.render import SheetTile, shrink
from pipeline.codec.processes import CodecPool
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.references import resolve
from pipeline.errors import InputError, StorageError, StorageUnavailable
from pipeline.insight.doubt import Doubt, doubt
from pipeline.jobs.dataset import DatasetOptions
from pipeline.models.load import open_model
from pipeline.numbers import percent
from pipeline.parallel import in_parallel

SUSPECTS_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("annotated", pa.string(), nullable=False),
        pa.field("seen", pa.string(), nullable=False),
        pa.field("left", pa.float32(), nullable=False),
        pa.field("top", pa.float32(), nullable=False),
        pa.field("right", pa.float32(), nullable=False),
        pa.field("bottom", pa.float32(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("mask", pa.string(), nullable=False),
    ],
    metadata={"fcn_schema": "suspects/1"},
)
"""One row per image, the most suspicious first. The box is of the commonest confusion, in fractions of the sides."""

_AT_ONCE = 8
_USUAL = 2.0
"""A confusion of up to so many times its mean over the other images is the model's own."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """One image. `score`: the share of its labelled pixels that are probably wrong, beyond what the model is wrong
    about everywhere. `annotated`, `seen`, `box`: the confusion that makes most of it; see PairDoubt."""

    rank: int
    split: str
    pair: Pair
    score: float
    annotated: str
    seen: str
    box: tuple[float, float, float, float]

    def reason(self) -> str:
        """In words."""
        left, top, right, bottom = (round(100 * side) for side in self.box)
        return (
            f"{self.annotated} where the model sees {self.seen}, {percent(self.score, 1)} of the image, "
            f"mostly at x {left}-{right} %, y {top}-{bottom} %"
        )


@dataclass(frozen=True)
class Suspects:
    """The images, most suspicious first, of so many; `skipped`: (name, why) of those that could not be looked at."""

    dataset: str
    model_id: str
    labels: LabelSet
    images: int
    found: tuple[Suspect, ...]
    skipped: tuple[tuple[str, str], ...]
    splits: dict[str, Pairs]

    def table(self) -> pa.Table:
        """As a table of SUSPECTS_SCHEMA."""
        rows = [
            (s.rank, s.pair.name, s.split, s.score, s.annotated, s.seen, *s.box, s.pair.image, s.pair.mask)
            for s in self.found
        ]
        columns = zip(*rows, strict=True) if rows else [[] for _ in SUSPECTS_SCHEMA]
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, SUSPECTS_SCHEMA, strict=True)], SUSPECTS_SCHEMA)


def find_suspects(
    options: DatasetOptions,
    model: str,
    *,
    splits: Sequence[str] = ("val",),
    top: int = 50,
    registry: str | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Suspects:
    """The `top` images of these splits whose annotations a model doubts most that was not trained on them.

    Predicts every image here, in this process. Raises InputError for what cannot be opened, or no fit of classes.
    """
    options = options.model_copy(update={"dataset": resolve(options.dataset)})
    opened = open_model(model, registry)
    catalog = open_catalog(options)
    datasets = {split: open_dataset(options, split) for split in dict.fromkeys(splits)}
    for dataset in datasets.values():
        try:
            check_classes(opened.bundle, dataset)
        except FcnError as error:
            raise InputError(str(error)) from error
    predictor = Predictor(opened.bundle)
    total = sum(map(len, datasets.values()))
    looked: list[tuple[str, Pair, Doubt]] = []
    skipped: list[tuple[str, str]] = []
    with CodecPool(len(os.sched_getaffinity(0))) as codecs:
        for split, dataset in datasets.items():
            for pair, loaded in _load(dataset, codecs):
                if isinstance(loaded, str):
                    skipped.append((pair.name, loaded))
                else:
                    looked.append((split, pair, _doubt(predictor, *loaded)))
                on_image(len(looked) + len(skipped), total)
    return Suspects(
        dataset=catalog.uri,
        model_id=opened.bundle.model_id,
        labels=catalog.labels,
        images=len(looked),
        found=tuple(ranked(looked, catalog.labels)[:top]),
        skipped=tuple(skipped),
        splits=datasets,
    )


def sheet_tiles(suspects: Suspects, model: str, count: int, registry: str | None = None) -> list[SheetTile]:
    """Image, annotation and prediction of the first `count` suspects, small: what a contact sheet shows."""
    predictor = Predictor(open_model(model, registry).bundle)
    tiles = []
    with CodecPool(1) as codecs:
        for suspect in suspects.found[:count]:
            loaded = _read(suspects.splits[suspect.split], suspect.pair, codecs)
            if not isinstance(loaded, str):
                image, annotation = loaded
                (answer,) = predictor.predict([image])
                caption = f"{suspect.rank}. {suspect.pair.name}"
                tiles.append(shrink(SheetTile(caption, image, answer.mask, suspect.reason(), annotation), 640))
    return tiles


Loaded = tuple[npt.NDArray[np.uint8], Mask]
"""An image, uint8 [H, W, 3], and its annotation, uint8 [H, W]."""


def _load(dataset: Pairs, codecs: CodecPool) -> Iterator[tuple[Pair, Loaded | str]]:
    """Every example in order, a few read at a time; what is wrong with it where it cannot be read."""
    return in_parallel(
        lambda pair: (pair, _read(dataset, pair, codecs)), dataset.pairs, threads=_AT_ONCE, name="suspects"
    )


def _read(dataset: Pairs, pair: Pair, codecs: CodecPool) -> Loaded | str:
    try:
        image, _ = decode_displayed(dataset.read(pair.image), pair.image, codecs.decode_for_core)
        mask = read_mask(dataset.read(pair.mask), dataset.labels, dataset.coding, dataset.recode)
    except StorageUnavailable:
        raise
    except (FcnError, StorageError, OSError) as error:
        return str(error)
    if mask.shape != image.shape[:2]:
        return f"its mask is {mask.shape[1]}x{mask.shape[0]}, the image {image.shape[1]}x{image.shape[0]}"
    return image, mask


def _doubt(predictor: Predictor, image: npt.NDArray[np.uint8], annotation: Mask) -> Doubt:
    (answer,) = predictor.predict([image], Outputs(probabilities=True))
    assert answer.probabilities is not None, "they were asked for"
    upsampling = predictor.upsampling(*annotation.shape)
    return doubt(annotation, answer.mask, answer.probabilities, upsampling, predictor.labels.num_classes)


def ranked(looked: Sequence[tuple[str, Pair, Doubt]], labels: LabelSet) -> list[Suspect]:
    """The images, (split, example, doubt), that have any excess of doubt over the others, the most first."""
    classes = labels.num_classes
    mass, labelled = np.zeros((classes, classes)), np.zeros(classes)
    for _, _, each in looked:
        labelled += each.labelled
        for found in each.pairs:
            mass[found.annotated, found.seen] += found.mass
    scored = []
    for split, pair, each in looked:
        best, total = None, 0.0
        for found in each.pairs:
            # Of all other images: one large error must not excuse itself.
            others = max(float(labelled[found.annotated] - each.labelled[found.annotated]), 1.0)
            rate = (mass[found.annotated, found.seen] - found.mass) / others
            excess = found.mass - _USUAL * rate * float(each.labelled[found.annotated])
            if excess > 0:
                total += excess
                best = max(best or (0.0, found), (excess, found), key=lambda item: item[0])
        if best is not None:
            scored.append((total / max(int(each.labelled.sum()), 1), split, pair, best[1]))
    scored.sort(key=lambda item: (-item[0], item[2].name))
    names = labels.names
    return [
        Suspect(rank, split, pair, score, names[most.annotated], names[most.seen], most.box)
        for rank, (score, split, pair, most) in enumerate(scored, 1)
    ]
