"""Whether images of a sample are in a data set that a model was trained on: then they no longer audit that model.

Images are compared by the SHA-256 of their bytes, whatever they are called there.
"""

import hashlib
from collections.abc import Mapping

from pipeline.audit.files import read_waves
from pipeline.data.datasets import open_catalog
from pipeline.errors import InputError, ObjectMissing
from pipeline.jobs.dataset import DatasetOptions
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store

READS_AT_ONCE = 16


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
