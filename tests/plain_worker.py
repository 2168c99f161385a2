"""Shards segmented without a network: a mask is one line as long as its image has bytes, all of class 0."""

from collections.abc import Callable

import numpy as np

from fcn_core import LabelSet, Segmentation
from fcn_core.labels import encode_mask
from pipeline.errors import StorageError, TakenOver
from pipeline.outputs.lease import is_superseded
from pipeline.outputs.plan import Shard
from pipeline.outputs.reconfirm import earlier_rows
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.segmentation.saving import PredictedMask, ShardTar, identity_columns, labelled, save_object
from pipeline.segmentation.segmenter import (
    SegmenterSpec,
    ShardOutcome,
    error_reason,
    refuse_if_of_the_moment,
    summarize,
)
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
        tar = ShardTar(output, spec.recipe, shard, spec.generation)
        for index, entry in enumerate(shard.entries):
            if index not in rows:
                found = self._segment(entry)
                if isinstance(found, PredictedMask) and spec.masks == "tar" and tar.hold(index, found):
                    continue
                rows[index] = found if isinstance(found, ResultRow) else self._save(found)
        packed, loose = tar.write()
        rows |= packed | {index: self._save(image) for index, image in loose.items()}
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
        return labelled(entry, recipe, 1, None, result, encode_mask(result.mask, labels), labels)

    def _save(self, image: PredictedMask) -> ResultRow:
        return save_object(self._output, self._spec.recipe, image, self._labels, self._spec.generation)
