"""What changed between two runs of an output: how far the class areas moved, and where masks of one image differ.

Made for two questions. Two nights of one model: do the pictures still look like those it was made for (drift)? Two
models on the same pictures: what would change, and where?
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import decode_mask
from fcn_core.render import SheetTile, contact_sheet
from pipeline.codec.processes import CodecPool
from pipeline.errors import InputError, PipelineError
from pipeline.insight.agreement import (
    PAIR_COLUMNS,
    Agreement,
    ClassIndex,
    PairSample,
    Side,
    agreements,
    translate,
    with_masks,
)
from pipeline.insight.shift import Distribution, Shift, shift
from pipeline.numbers import percent
from pipeline.outputs.current import choose_run, current_rows
from pipeline.outputs.labels import read_labels
from pipeline.outputs.masks import read_mask
from pipeline.outputs.runs import RunRecord, source_of
from pipeline.storage.store import Store

REPLICATES = 200
"""Bootstrap samples: enough for the ends of a 95 % interval."""

MASKS = 2000
"""Pairs of masks that are looked at, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class ClassChange:
    """One class: the mean of its shares of the images in either run, 0..1; 0 where the run does not know the class."""

    class_name: str
    mean_share_before: float
    mean_share_after: float


@dataclass(frozen=True)
class SameImages:
    """Images, by key and etag, that both runs made a mask of. `pixels` and `mean_iou` are means over a random sample of
    `compared` of them; None when their masks are gone. `equal` of all `images` have the very same mask."""

    images: int
    equal: int
    compared: int
    pixels: float | None
    mean_iou: float | None
    changed: tuple[Agreement, ...]
    """The images that changed most, the most first."""


@dataclass(frozen=True)
class Comparison:
    """Run B against run A. `shift` is over all images of each, `same` about those that both have."""

    first: RunRecord
    second: RunRecord
    images: tuple[int, int]
    shift: Shift
    classes: tuple[ClassChange, ...]
    same: SameImages


def compare(store: Store, run_a: str, run_b: str, *, top: int = 12, masks: int = MASKS, seed: int = 0) -> Comparison:
    """Compare two runs of one output; either may be given by the beginning of its id.

    At most `masks` pairs of masks are fetched: of more common images, half by chance and half of those whose areas
    changed most. Equal seeds give equal numbers. Streams: memory is that of `agreement.Side` for run A.

    Raises InputError for runs that are not there, are the same, or made no mask.
    """
    first, second = choose_run(store, run_a), choose_run(store, run_b)
    if first.run_id == second.run_id:
        raise InputError(f"{run_a} and {run_b} are the same run, {first.run_id}; name two")
    classes = ClassIndex()
    before, after = Distribution(REPLICATES, seed), Distribution(REPLICATES, seed)

    def rows(record: RunRecord, distribution: Distribution) -> Any:
        for batch in current_rows(store, run_id=record.run_id, columns=PAIR_COLUMNS):
            kept = with_masks(batch)
            distribution.add(kept["key"].to_pylist(), classes.fractions(kept["areas"]))
            yield kept

    side = Side(rows(first, before), classes)
    sample = PairSample(masks)
    for batch in rows(second, after):
        for pair in side.pairs(batch):
            sample.add(pair)
    for record, distribution in ((first, before), (second, after)):
        if not distribution.images:
            raise InputError(f"run {record.run_id} made no mask, so there is nothing to compare; see `fcn runs`")
    names = classes.names
    changes = zip(names, before.mean(len(names)).tolist(), after.mean(len(names)).tolist(), strict=True)
    return Comparison(
        first,
        second,
        (before.images, after.images),
        shift(before, after, len(names)),
        tuple(ClassChange(*change) for change in changes),
        _same_images(store, first, second, sample, top),
    )


def _same_images(store: Store, first: RunRecord, second: RunRecord, sample: PairSample, top: int) -> SameImages:
    if not sample.pairs:
        return SameImages(0, 0, 0, None, None, ())
    by_chance = sample.random()
    chosen = {pair.key: pair for pair in (*by_chance, *sample.changed())}
    translation = translate(read_labels(store, first), read_labels(store, second))
    found = {each.pair.key: each for each in agreements(store, list(chosen.values()), translation)}
    seen = [found[pair.key] for pair in by_chance if pair.key in found]
    unequal = [each for each in found.values() if each.pixels < 1]
    changed = sorted(unequal, key=lambda each: (each.pixels, each.pair.key))[:top]
    return SameImages(
        sample.pairs,
        sample.equal,
        len(seen),
        float(np.mean([each.pixels for each in seen])) if seen else None,
        float(np.mean([each.mean_iou for each in seen])) if seen else None,
        tuple(changed),
    )


def draw_changes(store: Store, comparison: Comparison) -> bytes | None:
    """A PNG of the images that changed most: image, run A's mask, run B's mask. None when there is none to show.

    Images are read from the source that run B was made from; those that are gone or changed are left out.
    """
    source = source_of(comparison.second)
    labels, other = read_labels(store, comparison.first), read_labels(store, comparison.second)
    together, translation = _joint_labels(labels, other)
    tiles = []
    with CodecPool(1) as codec:
        for each in comparison.same.changed:
            try:
                image = codec.decode(source.get(each.pair.key, etag=each.pair.etag)).result().pixels
                before, after = (decode_mask(read_mask(store, place)) for place in (each.pair.mask_a, each.pair.mask_b))
            except (PipelineError, LabelError):
                continue
            after = after if translation is None else translation[after]
            if before.shape == after.shape == image.shape[:2]:
                tiles.append(SheetTile(each.pair.key, image, after, f"{percent(1 - each.pixels)} changed", before))
    if not tiles:
        return None
    title = f"image, {comparison.first.run_id}, {comparison.second.run_id}"
    sink = io.BytesIO()
    contact_sheet(tiles, together, columns=2, tile_width=320, title=title).save(sink, "PNG")
    return sink.getvalue()


def _joint_labels(first: LabelSet, second: LabelSet) -> tuple[LabelSet, Any]:
    """Labels that hold the classes of both, numbered as `translate` does."""
    translation = translate(first, second)
    if translation is None:
        return first, None
    new = [(name, color) for name, color in zip(second.names, second.palette, strict=True) if name not in first.names]
    names, palette = (*first.names, *(name for name, _ in new)), (*first.palette, *(color for _, color in new))
    return LabelSet(name="both", names=names, palette=palette), translation
