"""How much faster is `segment` than the pipeline that one would otherwise write with Ray Data?

The same folder of images, the same weights, the same Ray on the same machine, taking turns in one run. The peer is the
usual recipe: read_binary_files, a map that decodes, an actor with the plain float32 network in channels-first PyTorch
that saves a palette PNG an image, write_parquet with the class areas. It is given as many model threads as there are
cores (by itself it would have one: Ray sets OMP_NUM_THREADS to an actor's num_cpus). Ours runs with its defaults, or
with what the options say.

End to end is from the call to its return, start of actors and loading of the model included; between first and last
mask is what a long run would see.

    python benchmarks/peer_ray_data.py --images FOLDER --model BUNDLE
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, preset
from pipeline.actors import cluster
from pipeline.jobs.segment import SegmentJob
from pipeline.segmentation.job import segment


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    with Image.open(io.BytesIO(row["bytes"])) as image:
        return {"path": row["path"], "image": np.asarray(image.convert("RGB"))}


class Labeller:
    """The peer's actor: plain PyTorch in float32."""

    def __init__(self, model: str, output: str, threads: int) -> None:
        torch.set_num_threads(threads)
        bundle = ModelBundle.load(model)
        self._model = bundle.build().eval()
        self._normalization = bundle.normalization
        self._labels = bundle.labels
        self._output = Path(output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, list[Any]] = {"path": [], "mask": [], "areas": []}
        for path, image in zip(batch["path"], batch["image"], strict=True):
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
            with torch.inference_mode():
                mask = self._model(self._normalization.apply(pixels)).argmax(1)[0].to(torch.uint8).numpy()
            name = self._output / f"{Path(path).stem}.png"
            png = Image.fromarray(mask)
            png.putpalette(self._labels.flat_palette())
            png.save(name)
            found["path"].append(path)
            found["mask"].append(str(name))
            found["areas"].append(np.bincount(mask.ravel(), minlength=self._labels.num_classes).tolist())
        return found


def run_peer(images: list[str], model: str, output: Path, threads: int) -> None:
    (output / "masks").mkdir(parents=True)
    dataset = ray.data.read_binary_files(images, include_paths=True).map(decoded)
    arguments = (model, str(output / "masks"), threads)
    # With num_cpus above 1 the actor would leave no core to reading and decoding, which is asked for by the CPU too.
    labelled = dataset.map_batches(
        Labeller, fn_constructor_args=arguments, batch_size=4, concurrency=1, num_cpus=1
    )  # fmt: skip
    labelled.write_parquet(str(output / "tables"))


def rate_between_masks(output: Path, count: int) -> float:
    """Images a second from the first mask's file to the last one's."""
    times = sorted(path.stat().st_mtime for path in (output / "masks").rglob("*.png"))
    assert len(times) == count, f"{len(times)} masks of {count} images in {output}"
    return (count - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="a local folder of images")
    parser.add_argument("--model", help="a bundle; default: an untrained full-width FCN-8s VGG16 with 21 classes")
    parser.add_argument("--int8", help="the same model's int8 bundle, for a third row")
    parser.add_argument("--limit", type=int, default=100, help="images a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    threads = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "photos")
        source.mkdir()
        for path in sorted(Path(options.images).iterdir())[: options.limit]:
            (source / path.name).symlink_to(path.resolve())
        files = [str(path) for path in sorted(source.iterdir())]
        model = options.model or f"{scratch}/model"
        if options.model is None:
            ModelBundle.new(Architecture(num_classes=21), preset("voc")).save(model)
        ours = {"segment": model} | ({"segment, int8": options.int8} if options.int8 else {})
        whole: dict[str, list[float]] = {}
        between: dict[str, list[float]] = {}
        with cluster.connect():
            ray.data.DataContext.get_current().enable_progress_bars = False
            for number in range(options.rounds):
                for name in ("Ray Data", *ours):
                    output = Path(scratch, f"{name}-{number}")
                    began = time.perf_counter()
                    if name == "Ray Data":
                        run_peer(files, str(Path(model).resolve()), output, threads)
                    else:
                        job = SegmentJob(
                            source=str(source), output=str(output), model=ours[name], no_report=True, shard_size=32
                        )
                        assert segment(job).counts.ok == len(files)
                    whole.setdefault(name, []).append(len(files) / (time.perf_counter() - began))
                    between.setdefault(name, []).append(rate_between_masks(output, len(files)))

    table = Table(title=f"{len(files)} images, {threads} cores, {options.rounds} rounds taking turns; medians")
    for column in ("", "images/s end to end", "ratio", "images/s between masks", "ratio"):
        table.add_column(column, justify="right")
    for name in whole:
        row = [name]
        for rates in (whole, between):
            # Neighbours in time are compared: the machine's other work slows both.
            ratios = [mine / theirs for mine, theirs in zip(rates[name], rates["Ray Data"], strict=True)]
            row += [f"{statistics.median(rates[name]):.2f}", f"{statistics.median(ratios):.2f}x"]
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
