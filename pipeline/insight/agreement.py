"""Where two labellings of the same images differ: images that both have, then their masks, pixel by pixel.

Fetching masks is what costs, so three things come before it: masks with one digest are equal; the areas of the rows
bound the difference from below (half the sum of the changes of share cannot be less than the share of pixels that
changed); and of very many images only some are looked at, those whose areas changed most and a random sample.
"""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import VOID, Mask, decode_mask
from fcn_core.metrics import ConfusionMatrix
from pipeline.errors import InputError, ObjectMissing
from pipeline.insight.shortlist import Shortlist
from pipeline.outputs.masks import read_mask
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store

MASKS_AT_ONCE = 16
PAIR_COLUMNS = ("key", "etag", "status", "mask_key", "mask_sha256", "areas", "confidence", "run_id")
"""What `pairs` needs of either side's rows."""

_CLASSES = 256


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """One image that both sides have a mask of. `area_change` 0..1: the least share of pixels that can differ."""

    key: str
    etag: str
    mask_a: str
    mask_b: str
    equal: bool
    area_change: float
    confidence_b: float | None
    run_b: str

    @property
    def chance(self) -> int:
        """A number that depends on the key alone, for samples that are random and yet the same every time."""
        return int.from_bytes(hashlib.blake2b(self.key.encode(errors="surrogatepass"), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike two masks are, both 0..1: `pixels` is the share of pixels with one class, `mean_iou` the mean over the
    classes that either mask has."""

    pair: ComparedPair
    pixels: float
    mean_iou: float


class ClassIndex:
    """Numbers for class names as they turn up, so that models with different label sets can be compared by name.

    `void` has the numbers that stand for pixels without a class.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.void: set[int] = set()
        self._numbers: dict[str, int] = {}

    def fractions(self, areas: Any) -> npt.NDArray[np.float64]:
        """The share of each class in each row of a results' column `areas`: float64 [rows, len(self.names)]."""
        column = areas.combine_chunks() if isinstance(areas, pa.ChunkedArray) else areas
        rows = np.repeat(
            np.arange(len(column)),
            np.nan_to_num(pc.list_value_length(column).to_numpy(False), nan=0).astype(int),
        )
        flat = column.flatten()
        encoded = flat.field("class_name").dictionary_encode()
        known = np.array([self.number(name) for name in encoded.dictionary.to_pylist()], np.int64)
        shares = np.zeros((len(column), len(self.names)))
        if len(flat):
            classes = known[encoded.indices.to_numpy(False)]
            self.void.update(classes[flat.field("class_id").to_numpy(False) == VOID].tolist())
            np.add.at(shares, (rows, classes), flat.field("fraction").to_numpy(False))
        return shares

    def number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


class Side:
    """The masks of one side, to look up by image. Memory: 30 bytes, 4 a class and the mask's name for each image."""

    def __init__(self, batches: Iterable[pa.RecordBatch], classes: ClassIndex) -> None:
        """`batches` have PAIR_COLUMNS; only rows with a mask are kept."""
        self._classes = classes
        marks, masks, places, shares = [], [], [], []
        self._names: list[pa.Array] = []
        for number, batch in enumerate(batches):
            batch = with_masks(batch)
            marks.append(_identities(batch))
            masks.append(_hashes(batch["mask_sha256"].to_pylist()))
            places.append(np.stack([np.full(len(batch), number, np.int32), np.arange(len(batch), dtype=np.int32)], 1))
            self._names.append(batch["mask_key"])
            shares.append(classes.fractions(batch["areas"]).astype(np.float32))
        width = len(classes.names)
        order_by = np.concatenate(marks) if marks else np.zeros(0, np.uint64)
        self._order = np.argsort(order_by)
        self._marks = order_by[self._order]
        self._masks = np.concatenate(masks) if masks else np.zeros(0, np.uint64)
        self._places = np.concatenate(places) if places else np.zeros((0, 2), np.int32)
        padded = [np.pad(share, ((0, 0), (0, width - share.shape[1]))) for share in shares]
        self._shares = np.concatenate(padded) if padded else np.zeros((0, width), np.float32)

    def pairs(self, batch: pa.RecordBatch) -> list[ComparedPair]:
        """The rows of the other side's `batch` whose image this side has a mask of, too: same key, same bytes."""
        batch = with_masks(batch)
        marks = _identities(batch)
        found = np.searchsorted(self._marks, marks)
        there = (
            np.flatnonzero((found < len(self._marks)) & (self._marks[np.minimum(found, len(self._marks) - 1)] == marks))
            if len(self._marks)
            else np.zeros(0, int)
        )
        if not len(there):
            return []
        batch = batch.take(pa.array(there))
        mine = self._order[found[there]]
        shares = self._classes.fractions(batch["areas"])
        before = np.pad(self._shares[mine], ((0, 0), (0, shares.shape[1] - self._shares.shape[1])))
        change = np.abs(shares - before).sum(axis=1) / 2
        equal = self._masks[mine] == _hashes(batch["mask_sha256"].to_pylist())
        columns = (batch[name].to_pylist() for name in ("key", "etag", "mask_key", "confidence", "run_id"))
        return [
            ComparedPair(
                key, etag, self._names[at][row].as_py(), mask_key, bool(same), min(1.0, moved), confidence, run_id
            )
            for key, etag, mask_key, confidence, run_id, (at, row), same, moved in zip(
                *columns, self._places[mine].tolist(), equal.tolist(), change.tolist(), strict=True
            )
        ]


class PairSample:
    """Which pairs to look at, of any number: all up to `size`; of more, half by area change and half by chance."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.pairs = 0
        self.equal = 0
        self._changed: Shortlist[ComparedPair] = Shortlist(size)
        self._random: list[tuple[int, str, ComparedPair]] = []  # a heap, the largest chance on top

    def add(self, pair: ComparedPair) -> None:
        self.pairs += 1
        self.equal += pair.equal
        if not pair.equal:
            self._changed.offer(pair.area_change, pair.key, "", pair)
        entry = (-pair.chance, pair.key, pair)
        if len(self._random) < self._size:
            heapq.heappush(self._random, entry)
        elif entry[:2] > self._random[0][:2]:
            heapq.heapreplace(self._random, entry)

    def random(self) -> list[ComparedPair]:
        """A random sample, equal masks among them: all pairs where they fit, else half of `size`."""
        chosen = sorted(self._random, key=lambda entry: entry[:2], reverse=True)
        keep = self._size if self.pairs <= self._size else self._size // 2
        return [pair for _, _, pair in chosen[:keep]]

    def changed(self) -> list[ComparedPair]:
        """Those whose areas changed most, the most first: all unequal ones where they fit, else half of `size`."""
        keep = self._size if self.pairs <= self._size else self._size - self._size // 2
        return [pair for _, _, pair in self._changed.best()[:keep]]


def agreements(
    store: Store, pairs: Sequence[ComparedPair], translation: npt.NDArray[np.uint8] | None = None
) -> Iterator[Agreement]:
    """Fetch and compare the masks of each pair, in order. A pair that lost a mask since is left out.

    `translation`, uint8 [256], gives the second side's classes the numbers of the first, see `translate`.
    """

    def compare(pair: ComparedPair) -> Agreement | None:
        if pair.equal and translation is None:
            return Agreement(pair, 1.0, 1.0)
        try:
            first, second = (decode_mask(read_mask(store, key)) for key in (pair.mask_a, pair.mask_b))
            return Agreement(pair, *mask_agreement(first, second if translation is None else translation[second]))
        except (ObjectMissing, LabelError):
            return None

    compared = in_parallel(compare, pairs, threads=MASKS_AT_ONCE, name="masks")
    return (found for found in compared if found is not None)


def translate(first: LabelSet, second: LabelSet) -> npt.NDArray[np.uint8] | None:
    """The number that each class of `second` has in `first`, by name; one beyond those of `first` where it has no such
    class. None when the two number their classes alike. Raises InputError for more classes than a byte holds."""
    if first.names == second.names:
        return None
    names = {name: index for index, name in enumerate(first.names)}
    numbers = np.arange(256)
    for index, name in enumerate(second.names):
        numbers[index] = names.setdefault(name, len(names))
    if len(names) >= _CLASSES:
        raise InputError(f"the two models have {len(names)} classes between them; masks with over 255 do not compare")
    return numbers.astype(np.uint8)


def mask_agreement(first: Mask, second: Mask) -> tuple[float, float]:
    """Share of equal pixels and mean IoU of two masks, uint8 [H, W] of one size. Which is first does not matter.

    Void pixels count as a class of their own. Raises LabelError when their sizes differ.
    """
    matrix = ConfusionMatrix(_CLASSES, ignore_index=None)
    matrix.update(first, second)
    scores = matrix.scores()
    return scores.pixel_accuracy or 0.0, scores.mean_iou or 0.0


def with_masks(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that have a mask."""
    return batch.filter(pc.is_valid(batch["mask_key"]))


def _identities(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    pairs = zip(batch["key"].to_pylist(), batch["etag"].to_pylist(), strict=True)
    return _hashes([f"{etag}\0{key}" for key, etag in pairs])


def _hashes(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits that stand for each text: among 10^7 of them, two meet once in 300,000 outputs."""
    raw = b"".join(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(raw, np.uint64)
