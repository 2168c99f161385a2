"""Makes what a version leaves behind, to be kept for its successors: `python -m tests.compatibility.make`.

It is run once a released version, by that version, and what it made is never changed: tests/compatibility/<version>/
has photos, a registry with a champion, and the output of a run over the photos with its index.
"""

import os
from importlib.metadata import version
from pathlib import Path
from shutil import rmtree

import torch
from PIL import Image

from fcn_core import Architecture, LabelSet, ModelBundle, build
from pipeline.jobs.segment import SegmentJob
from pipeline.models.registry import Registry
from pipeline.outputs.compact import compact
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.samples import photo

HERE = Path(__file__).parent
WHEN = 1_767_225_600  # 2026, as a time of change of every photo: it is part of a local file's etag
LABELS = LabelSet(
    name="yard", names=("ground", "wall", "plant"), palette=((120, 90, 60), (200, 200, 200), (40, 160, 60))
)

JOB = {
    "source": "photos",
    "output": "labels",
    "model": "registry:yard@champion",
    "registry": "registry",
    "device": "cpu",
    "precision": "float32",
    "batch_size": 1,
    "actors": 1,
    "cpus_per_actor": 1,
    "gpus_per_actor": 0,
    "codec_workers": 1,
    "no_report": True,
}
"""Everything that "auto" would settle by the machine is said."""


def model() -> ModelBundle:
    """The smallest network there is; its weights are few values, so that they pack well."""
    network = build(Architecture(arch="fcn8s", backbone="alexnet", num_classes=3, width=0.02, head_width=4))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape, generator=generator) / 4)
    return ModelBundle.from_model(
        network, LABELS, provenance={"made": "by tests.compatibility.make"}, scores={"mean_iu": 0.5}
    )


def date_photos(folder: Path) -> None:
    """Give the photos the time of change that they had when they were labelled; a checkout has its own."""
    for file in (folder / "photos").rglob("*.*"):
        os.utime(file, (WHEN, WHEN))


def main() -> None:
    folder = HERE / f"v{version('fcn-pipeline')}"
    (folder / "photos" / "north").mkdir(parents=True)
    for seed, name in enumerate(("gate.jpg", "north/shed.jpg")):
        Image.fromarray(photo(64, 48, seed)).save(folder / "photos" / name, quality=60)
    (folder / "photos" / "notes.jpg").write_bytes(b"not an image")
    date_photos(folder)
    os.chdir(folder)
    registry = Registry(open_store("registry"))
    registry.promote("yard", registry.publish("yard", model(), {"note": "first"}), "the first model", {"mean_iu": 0.5})
    segment(SegmentJob.model_validate(JOB))
    compact(open_store("labels"))
    # Of this machine, and of nobody's interest: where the folder is, and who held the lease.
    for record in Path("labels/runs").glob("*/run.json"):
        record.write_text(record.read_text().replace(str(folder), "/site"))
    rmtree("labels/lease")


if __name__ == "__main__":
    main()
