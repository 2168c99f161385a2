"""What does a training step cost beyond the model's own forward and backward pass, and does the loader keep up?

Three things take turns in one run, so that a busy machine slows all of them alike: the model's bare forward and
backward pass on pixels that are there already, the whole training loop (reading, varying, loss, clipping, optimiser),
and the loader alone. A ratio is the median over rounds, each of which compares times of its own.

    python benchmarks/train_step.py                                  # FCN-8s VGG16 on generated scenes, on the CPU
    python benchmarks/train_step.py --dataset FOLDER --preset camvid
    python benchmarks/train_step.py --device cuda --batch 32 --workers 12 --steps 20
    python benchmarks/train_step.py --threads 1 --cpu-time           # where other work shares the machine
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle
from fcn_core.data.augmentation import Augmentation
from fcn_core.data.datasets import Dataset, Pairs, folder, voc_pairs
from fcn_core.data.stream import ExampleStream, Shares, load_batches
from fcn_core.data.transform import TrainTransform
from fcn_core.labels import encode_mask
from fcn_core.training.config import TrainConfig
from fcn_core.training.trainer import Trainer
from flows.demo.scenes import SCENE_LABELS, generate_scene
from pipeline.data.datasets import open_dataset
from pipeline.jobs.dataset import DatasetOptions

SCENES = 48
SCENE_SIZE = (480, 360)  # CamVid's, as most people have it
STEPS = 10_000  # more than there will be


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="a data set with a split train; default: generated scenes of 480x360")
    parser.add_argument("--preset", help="its layout and classes, see fcn train")
    parser.add_argument("--head-width", type=int, default=512)
    parser.add_argument("--crop", default="288x384", help="HEIGHTxWIDTH in pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--threads", type=int, help="CPU threads of the training process; default: PyTorch's")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; 0: the training process loads")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count this process's CPU time, not the clock; with --threads 1"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    height, width = (int(side) for side in options.crop.split("x"))
    config = TrainConfig(
        steps=STEPS,
        batch_size=options.batch,
        device=options.device,
        precision=options.precision,
        workers=options.workers,
        augmentation=Augmentation(crop_height=height, crop_width=width, scale_min=0.6, scale_max=1.7),
    )
    with tempfile.TemporaryDirectory() as scratch:
        if options.dataset:
            opened = DatasetOptions(dataset=options.dataset, preset=options.preset)
            dataset: Dataset = open_dataset(opened, "train")
        else:
            dataset = generated(Path(scratch))
        architecture = Architecture(num_classes=dataset.labels.num_classes, head_width=options.head_width)
        bundle = ModelBundle.new(architecture, dataset.labels)
        clock = time.process_time if options.cpu_time else time.perf_counter
        seconds = measure(bundle, dataset, config, options.rounds, options.steps, clock)
    title = (
        f"{architecture.arch} {architecture.backbone}, head {options.head_width}, {options.batch} crops of "
        f"{options.crop}\n{options.precision} on {options.device}, {torch.get_num_threads()} threads, "
        f"{options.workers} loader processes, {options.rounds} rounds of {options.steps} steps"
        + (", CPU time" if options.cpu_time else "")
    )
    Console().print(table(title, seconds, options.batch))


def generated(place: Path) -> Pairs:
    """Scenes as JPEG and PNG files, so that reading them costs what reading photographs does."""
    names = [f"scene-{seed}" for seed in range(SCENES)]
    pairs = voc_pairs(names)
    for seed, pair in enumerate(pairs):
        scene = generate_scene(seed, *SCENE_SIZE)
        for key in (pair.image, pair.mask):
            (place / key).parent.mkdir(exist_ok=True)
        Image.fromarray(scene.image).save(place / pair.image, quality=90)
        (place / pair.mask).write_bytes(encode_mask(scene.mask, SCENE_LABELS))
    return Pairs(folder(place), pairs, SCENE_LABELS)


def measure(
    bundle: ModelBundle,
    dataset: Dataset,
    config: TrainConfig,
    rounds: int,
    steps: int,
    clock: Callable[[], float],
) -> dict[str, list[float]]:
    """Seconds a step of each of the three, one entry a round."""
    trainer = Trainer(bundle.build(), dataset, config, bundle.normalization)
    stream = ExampleStream(dataset, TrainTransform(config.augmentation, dataset.labels.ignore_index), config.seed)
    batches = itertools.chain.from_iterable(
        load_batches(stream, Shares(0, STEPS, config.batch_size), config.workers) for _ in itertools.count()
    )
    loop = trainer.run()
    parts: dict[str, Callable[[], object]] = {
        "bare": bare_pass(trainer, next(batches).images),
        "loop": lambda: next(loop),
        "loader": lambda: next(batches),
    }
    # What loader processes have made ahead while others had their turn is not counted.
    ahead = {"bare": 0, "loop": 2 * config.workers, "loader": 2 * config.workers}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, step in parts.items():
            for _ in range(ahead[name]):
                step()
            synchronize(trainer.device)
            began = clock()
            for _ in range(steps):
                step()
            synchronize(trainer.device)
            if number:  # the first round warms up
                seconds[name].append((clock() - began) / steps)
    return seconds


def bare_pass(trainer: Trainer, pixels: torch.Tensor) -> Callable[[], None]:
    """The trainer's own model, forward and backward, on a batch that is on the device: no loss, no optimiser."""
    inputs = trainer.normalization.apply(pixels.to(trainer.device)).contiguous(memory_format=torch.channels_last)
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[trainer.config.precision]
    gradient: torch.Tensor | None = None

    def step() -> None:
        nonlocal gradient
        trainer.model.train()
        with torch.autocast(trainer.device.type, dtype, enabled=dtype is not None):
            logits = trainer.model(inputs)
        if gradient is None:
            gradient = torch.randn_like(logits) * 1e-6
        logits.backward(gradient)
        trainer.model.zero_grad(set_to_none=True)

    return step


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(title: str, seconds: dict[str, list[float]], batch: int) -> Table:
    result = Table(title=title)
    for name in ("", "ms per step", "images/s", "range", "of bare"):
        result.add_column(name, justify="right" if name else "left", no_wrap=True)
    rows = {"bare forward + backward": "bare", "whole training loop": "loop", "loader alone": "loader"}
    for row, name in rows.items():
        times = seconds[name]
        ratio = statistics.median(bare / own for bare, own in zip(seconds["bare"], times, strict=True))
        result.add_row(
            row,
            f"{1000 * statistics.median(times):.1f}",
            f"{batch / statistics.median(times):.2f}",
            f"{batch / max(times):.2f} - {batch / min(times):.2f}",
            f"{ratio:.3f}",
        )
    return result


if __name__ == "__main__":
    main()
