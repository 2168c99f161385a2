"""The place that the documentation speaks of: photos, models, a data set, an output, buckets, a registry."""

import os
import shutil
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

from fcn_core import ModelBundle, colorize, encode_mask, preset
from pipeline import Registry, open_store
from tests.labelled import write_labelled
from tests.samples import fill, jpeg, model

JOB = """\
source: photos
output: labels
model: demo-output/model
device: cpu
"""


def make_site(folder: Path) -> None:
    """Everything local, below `folder`. The output `labels` is made by the README's own commands."""
    fill(folder / "photos" / "north", 2)
    fill(folder / "photos" / "south", 2)
    (folder / "photos" / "north" / "bad.jpg").write_bytes(b"no image")
    (folder / "photos" / "front-door.jpg").write_bytes(jpeg(96, 72, seed=50))
    bundle = model()
    for place in ("model", "demo-output/model"):
        (folder / place).parent.mkdir(exist_ok=True)
        bundle.save(folder / place)
    model(preset("voc")).save(folder / "voc")  # stands in for torchvision's, which would have to be fetched
    for place in ("camvid", "mydata"):
        write_labelled(folder / place, 4)
        for split, names in (("train", "000\n001\n"), ("val", "002\n003\n")):
            (folder / place / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    (folder / "mydata" / "labels.json").write_text(preset("camvid").model_dump_json())
    voc = preset("voc")
    mask = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((24, 24), np.uint8))
    (folder / "photo.jpg").write_bytes(jpeg(96, 72, seed=51))
    (folder / "mask.png").write_bytes(encode_mask(mask, voc))
    Image.fromarray(colorize(mask, voc)).save(folder / "colours.png")
    (folder / "job.yaml").write_text(JOB)


def make_buckets(folder: Path) -> tuple[str, str]:
    """The buckets that the pages name, in the S3 server that AWS_* point to. Returns the two models of registry `road`.

    Writes the profile `cameras` into `folder`/credentials.
    """
    client = boto3.client("s3")
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in {"cameras", "labels", "models", "company", "scores"} - there:
        client.create_bucket(Bucket=bucket)
    photos = open_store("s3://cameras/2026")
    for index in range(2):
        photos.put(f"{index}.jpg", jpeg(96, 72, seed=60 + index))
    first, second = model(), model(seed=1)
    for name, data in first.to_files().items():
        open_store("s3://models/street/3").put(name, data)
    (folder / "credentials").write_text(
        f"[cameras]\naws_access_key_id = {os.environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {os.environ['AWS_SECRET_ACCESS_KEY']}\n"
    )
    registry = Registry(open_store("s3://company/registry"))
    return _published(registry, first, "base recipe"), _published(registry, second, "colour jitter")


def _published(registry: Registry, bundle: ModelBundle, note: str) -> str:
    version = registry.publish("road", bundle, {"note": note})
    registry.promote("road", version, "first model")
    return version


def copy_site(site: Path, target: Path) -> Path:
    """A page's own copy, so that pages do not see what others have made."""
    shutil.copytree(site, target)
    return target
