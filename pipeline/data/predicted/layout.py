"""The layout of an output as a data set: images of its source, masks under the output.

The one thing to know: a mask belongs to the image that was segmented. Images that were replaced or deleted since are
left out, and what is read is proven to be what was listed (images) and committed (masks).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from fcn_core import LabelSet
from fcn_core.data.datasets import Pair
from pipeline.data.layouts import Split, look_up
from pipeline.data.places import KeyResolver
from pipeline.data.predicted.references import finished_run, parse_predicted
from pipeline.data.predicted.selection import COLUMNS, PredictedImage, choose, split_images
from pipeline.data.stored_files import StoredFiles
from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.outputs.current import current_rows
from pipeline.outputs.labels import read_labels
from pipeline.outputs.masks import read_mask
from pipeline.outputs.runs import source_of
from pipeline.sources.member import address_of
from pipeline.sources.opening import open_source
from pipeline.storage.file_cache import FileCache
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uri import OUTPUT_PREFIX


class PredictedFiles(StoredFiles):
    """Reads images of the source by key, and masks of the output by "output:" and their mask_key. Can be pickled.

    `masks`: the SHA-256 of each mask. Raises what `StoredFiles` does.
    """

    def __init__(
        self,
        places: KeyResolver,
        known: Mapping[str, ObjectInfo],
        cache: FileCache | None,
        output: Store,
        masks: Mapping[str, str],
    ) -> None:
        super().__init__(places, known, cache)
        self.output = output
        self.masks = masks

    def _read(self, key: str) -> bytes:
        if key not in self.masks:
            return super()._read(key)
        mask_key, promised = key.removeprefix(OUTPUT_PREFIX), self.masks[key]
        try:
            if self.cache is None:
                data = read_mask(self.output, mask_key)
            else:
                identity = "\0".join((self.output.uri, mask_key, promised))
                data = self.cache.get(identity, lambda: read_mask(self.output, mask_key))
        except ObjectMissing as error:
            raise FileNotFoundError(str(error)) from error
        if hashlib.sha256(data).hexdigest() != promised:
            raise StorageError(f"{mask_key} is not the mask that was committed; see `fcn verify`")
        return data


@dataclass
class PredictedLayout:
    """Splits train and val of the predictions of one run's variant, as they were when the run was finished."""

    output: Store
    places: KeyResolver
    images: Mapping[str, list[PredictedImage]]
    notes: tuple[str, ...]
    known: dict[str, ObjectInfo] = field(default_factory=dict)
    recode: Mapping[int, int] = field(default_factory=dict)

    def splits(self) -> list[str]:
        return sorted(self.images)

    def split(self, name: str) -> Split:
        """Raises InputError where no image of the split is as it was segmented."""
        wanted = self.images[name]
        self.known.update(look_up(self.places, {each.image.key for each in wanted} - self.known.keys()))
        there = [each for each in wanted if _is_same(each.image, self.known.get(each.image.key))]
        gone = len(wanted) - len(there)
        if wanted and not there:
            raise InputError(
                f"of the {len(wanted):,} images of split {name!r} none is under {self.places.root.uri} as it was "
                f"segmented (such as {wanted[0].image.key}); segment the source again"
            )
        notes = [f"{gone:,} images that were replaced or deleted since then are left out"] if gone else []
        pairs = (Pair(each.image.key, each.image.key, OUTPUT_PREFIX + each.mask_key) for each in there)
        return Split(tuple(pairs), notes=(*self.notes, *notes))

    def reader(self, split: Split, cache: FileCache | None) -> PredictedFiles:
        """What reads the files of a split."""
        digests = {OUTPUT_PREFIX + each.mask_key: each.mask_sha256 for found in self.images.values() for each in found}
        masks = {pair.mask: digests[pair.mask] for pair in split.pairs}
        known = {pair.image: self.known[pair.image] for pair in split.pairs}
        return PredictedFiles(self.places, known, cache, self.output, masks)


def open_predicted(options: DatasetOptions) -> tuple[PredictedLayout, LabelSet]:
    """The layout of a resolved `output:URI@RUN`, and its classes. Reads the rows of results, and one mask for colours.

    Raises InputError for a run that is not there or not finished, and where no prediction is good enough.
    """
    reference = parse_predicted(options.dataset)
    assert reference.run_id is not None, "the reference was resolved"
    output = open_source(reference.place)
    output.check_readable()
    record = finished_run(output, reference.run_id)
    rows = current_rows(output, record.recipe, columns=COLUMNS, until=record.run_id)
    chosen = choose(rows, options.predicted)
    if not chosen:
        raise InputError(
            f"{options.dataset} has no mask with a confidence of {options.predicted.min_confidence:g} or more and a "
            "class in it; lower predicted.min_confidence"
        )
    images, notes = split_images(chosen, options.predicted)
    layout = PredictedLayout(output, KeyResolver(source_of(record)), images, notes)
    return layout, read_labels(output, record)


def _is_same(segmented: ObjectInfo, there: ObjectInfo | None) -> bool:
    if there is None or segmented.etag != there.etag:
        return False
    # Of a row of a Parquet file a listing has the mean size of its rows; the etag of a member says which bytes it is.
    return segmented.size == there.size or address_of(there.key, there.etag) is not None
