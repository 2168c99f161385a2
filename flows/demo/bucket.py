"""What the demo has in its bucket: street scenes with known ground truth, and the awkward files of any real bucket.

Photos to label, in folders such as a camera makes, and other scenes with their masks to train on, as a data set in
PASCAL VOC's layout.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import boto3

from fcn_core.data.datasets import voc_pairs
from fcn_core.labels import Mask, encode_mask
from flows.demo.scenes import SCENE_LABELS, encode_jpeg, generate_scene, scene_size, special_files
from pipeline.data.datasets import LABELS_FILE
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

FIRST_SEED = 50_000
"""Scenes from here on are photos to label; the model is trained and chosen on others."""

TRAINING_SEEDS = range(240)
HELD_OUT_SEEDS = range(10_000, 10_040)

SCENES_PER_FOLDER = 40


@dataclass(frozen=True)
class DemoFile:
    """A file of the bucket. `truth`: uint8 [H, W] as the image is displayed, None where there is nothing to label."""

    key: str
    data: bytes
    truth: Mask | None
    comment: str = ""


def create_bucket(name: str) -> Store:
    """A new, empty bucket on the server that AWS_* point to."""
    boto3.client("s3").create_bucket(Bucket=name)
    return open_store(f"s3://{name}")


def street_files(numbers: Iterable[int]) -> Iterator[DemoFile]:
    """The bucket's street scenes of those numbers, as JPEGs in folders such as a camera makes."""
    for number in numbers:
        seed = FIRST_SEED + number
        scene = generate_scene(seed, *scene_size(seed))
        key = f"drive-{1 + number // SCENES_PER_FOLDER:02d}/street-{number:04d}.jpg"
        yield DemoFile(key, encode_jpeg(scene.image), scene.mask)


def awkward_files() -> Iterator[DemoFile]:
    """The special files, as if somebody had uploaded them by hand."""
    for file in special_files(FIRST_SEED - 100):
        yield DemoFile(f"uploads/{file.name}", file.data, file.mask, file.comment)


def upload(files: Iterable[DemoFile], source: Store, on_file: Callable[[int], None]) -> dict[str, Mask]:
    """Put the files into `source`; returns the ground truth by key. `on_file` receives how many are there."""
    truth = {}
    for count, file in enumerate(files, 1):
        source.put(file.key, file.data)
        if file.truth is not None:
            truth[file.key] = file.truth
        on_file(count)
    return truth


def upload_dataset(splits: Mapping[str, range], target: Store, on_scene: Callable[[int], None]) -> None:
    """Put the scenes of each split's seeds into `target`, with masks, lists and label set.

    `on_scene` receives how many are there.
    """
    target.put(LABELS_FILE, SCENE_LABELS.model_dump_json(indent=1).encode())
    count = 0
    for split, seeds in splits.items():
        pairs = voc_pairs(f"scene-{seed:05d}" for seed in seeds)
        for seed, pair in zip(seeds, pairs, strict=True):
            scene = generate_scene(seed, *scene_size(seed))
            target.put(pair.image, encode_jpeg(scene.image))
            target.put(pair.mask, encode_mask(scene.mask, SCENE_LABELS))
            count += 1
            on_scene(count)
        target.put(f"ImageSets/Segmentation/{split}.txt", "".join(f"{pair.name}\n" for pair in pairs).encode())
