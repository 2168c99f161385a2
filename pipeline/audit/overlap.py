"""Whether a model was trained on images of a sample: then they no longer audit that model.

A data set is compared by the SHA-256 of its images' bytes, whatever they are called there. A model that records what it
was trained on (`fcn_core.trained_on`) is compared by the pixels.
"""

import hashlib
from collections.abc import Mapping

from fcn_core.trained_on import TrainedOn, pixel_digest
from pipeline.audit.files import read_audit, read_waves
from pipeline.codec.processes import CodecPool
from pipeline.data.datasets import open_catalog
from pipeline.errors import ImageError, InputError, ObjectMissing, StorageError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.models.load import load_bundle
from pipeline.numbers import counted
from pipeline.parallel import in_parallel
from pipeline.sources.opening import open_source
from pipeline.storage.store import Store

READS_AT_ONCE = 16
CODEC_WORKERS = 2


def sampled_digests(audit: Store) -> dict[str, str]:
    """Keys of the images drawn, by their SHA-256."""
    return {
        digest: key
        for _, sample in read_waves(audit)
        for key, digest in zip(sample["key"].to_pylist(), sample["sha256"].to_pylist(), strict=True)
        if digest is not None
    }


def trained_on(digests: Mapping[str, str], dataset: str, split: str | None = None) -> list[tuple[str, str]]:
    """Images of a sample (`digests`: keys by SHA-256) that are in a data set: their keys, and those there.

    `split` limits the search; default: all splits. Reads every image of the data set.
    """
    catalog = open_catalog(DatasetOptions(dataset=dataset))
    names = [split] if split is not None else catalog.splits()
    images = sorted({pair.image for name in names for pair in catalog.split(name).pairs})

    def find(image: str) -> tuple[str, str] | None:
        store, name = catalog.places.find(image)
        try:
            key = digests.get(hashlib.sha256(store.get(name)).hexdigest())
        except ObjectMissing:
            return None
        return None if key is None else (key, image)

    compared = in_parallel(find, images, threads=READS_AT_ONCE, name="overlap")
    return sorted(found for found in compared if found is not None)


def refuse_overlap(audit: Store, dataset: str, split: str | None = None) -> None:
    """Raises InputError, naming images, where a model that learned from `dataset` has seen some of its own audit."""
    found = trained_on(sampled_digests(audit), dataset, split)
    if found:
        shown = ", ".join(f"{key!r}" for key, _ in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"{len(found)} of the images that {audit.uri} drew are in the training data {dataset} ({shown}{more}); a "
            "model that has seen the truth of its own audit looks better than it is: draw a new sample with "
            "`fcn audit plan`"
        )


def seen_in_training(audit: Store) -> str | None:
    """A note on the images drawn that the audited model was trained on, by what its bundle records.

    None where there are none. A model that is gone, or that records no images, cannot be compared.
    """
    record = read_audit(audit)
    seen = _images_of(record.model_uri or record.model, record.model_id)
    if seen is None:
        return None
    source = open_source(record.source, follow_links=record.follow_links)
    drawn = [
        (key, etag)
        for _, sample in read_waves(audit)
        for key, etag, left_out in zip(*(sample[name].to_pylist() for name in ("key", "etag", "left_out")), strict=True)
        if left_out is None
    ]
    with CodecPool(CODEC_WORKERS) as codecs:

        def digest(image: tuple[str, str]) -> bytes | None:
            try:
                return pixel_digest(codecs.decode_now(source.get(image[0], etag=image[1])).pixels)
            except (StorageError, ImageError):
                return None  # gone or replaced since; what was annotated is its copy

        found = [each for each in in_parallel(digest, drawn, threads=READS_AT_ONCE, name="seen") if each is not None]
    count = seen.count(found)
    if not count:
        return None
    return (
        f"the model was trained on {'' if seen.complete else 'at least '}{count:,} of {counted(len(found), 'image')} "
        "drawn: the intervals hold for this output only if training images were not chosen because of this audit, and "
        "say nothing of images that the model has not seen"
    )


def _images_of(model: str, model_id: str) -> TrainedOn | None:
    try:
        bundle = load_bundle(model)
    except (InputError, StorageError):
        return None
    return bundle.trained_on if bundle.model_id == model_id else None
