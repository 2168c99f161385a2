"""COCO with run lengths: one annotation for each class of an image, exact."""

from pipeline.exports.formats.base import Exported, MaskedImage
from pipeline.exports.formats.coco import CocoDocument
from pipeline.exports.shapes.run_lengths import encode_regions


class CocoRunLengths(CocoDocument):
    """See `base.ExportFormat`."""

    def write(self, image: MaskedImage) -> Exported:
        annotations = (
            {
                "category_id": region.class_id + 1,
                "area": region.area,
                "bbox": region.box,
                "iscrowd": 0,
                "segmentation": {"size": image.mask.shape, "counts": region.counts},
            }
            for region in encode_regions(image.mask, self.context.options.min_area)
        )
        return Exported(records=self.records(image, annotations))
