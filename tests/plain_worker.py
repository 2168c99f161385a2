"""Shards segmented without a network: a mask is one line as long as its image has bytes, all of class 0."""

from collections.abc import Callable

import numpy as np

from fcn_core import LabelSet, Segmentation
from fcn_core.labels import encode_mask
from pipeline.actors.outcome import ShardOutcome, error_reason
from pipeline.errors import StorageError, TakenOver
from pipeline.outputs.lease import is_superseded
from pipeline.outputs.mask_formats import mask_format
from pipeline.outputs.mask_formats.base import MaskTarget, PredictedMask
from pipeline.outputs.reconfirm import earlier_rows
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.outputs.shard import Shard
from pipeline.segmentation.rows import identity_columns, segmented
from pipeline.segmentation.segmenter import SegmenterSpec, refuse_if_of_the_moment, summarize
from pipeline.storage.store import ObjectInfo, Store


class PlainWorker:
    """Saves and commits as a Segmenter does. `on_image` is told of each image that was read."""

    def __init__(
        self,
        spec: SegmenterSpec,
        labels: LabelSet,
        source: Store,
        output: Store,
        on_image: Callable[[ObjectInfo], None] = lambda entry: None,
    ) -> None:
        self._spec = spec
        self._labels = labels
        self._source = source
        self._output = output
        self._on_image = on_image

    def process(self, shard: Shard) -> ShardOutcome:
        spec, output = self._spec, self._output
        rows = earlier_rows(output, spec.recipe, shard)
        target = MaskTarget(output, spec.recipe, self._labels, shard, spec.generation)
        writer, singly = mask_format(spec.masks).writer(target), mask_format("objects").writer(target)
        left: dict[int, PredictedMask] = {}
        for index, entry in enumerate(shard.entries):
            if index not in rows:
                found = self._segment(entry)
                row = found if isinstance(found, ResultRow) else writer.write(found)
                if row is not None:
                    rows[index] = row
                elif isinstance(found, PredictedMask) and not writer.add(index, found):
                    left[index] = found
        packed, rest = writer.finish()
        rows |= packed
        for index, image in (left | rest).items():
            row = singly.write(image)
            assert row is not None
            rows[index] = row
        ordered = [rows[index] for index in range(len(shard.entries))]
        if not shard.insist:
            refuse_if_of_the_moment(ordered)
        if spec.lease is not None and is_superseded(output, spec.lease):
            raise TakenOver(output.uri)
        return summarize(shard.number, commit_shard(output, spec.run_id, shard.number, ordered), {})

    def close(self) -> None:
        """Nothing is held."""

    def _segment(self, entry: ObjectInfo) -> PredictedMask | ResultRow:
        recipe, labels = self._spec.recipe, self._labels
        try:
            data = self._source.get(entry.key, size=entry.size, etag=entry.etag)
        except StorageError as error:
            reason, message = error_reason(error)
            return ResultRow(**identity_columns(entry, recipe), status="error", error=reason, message=message)
        self._on_image(entry)
        areas = np.eye(1, labels.num_classes, dtype=np.int64)[0] * len(data)
        result = Segmentation(np.zeros((1, len(data)), np.uint8), areas, 0.5)
        return segmented(entry, recipe, 1, None, result, encode_mask(result.mask, labels), labels)
