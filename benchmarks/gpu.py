"""How near to the GPU's own limit does the model come?

The ceiling is measured beside it: the best of a few large bfloat16 matrix products. Against that stand the network
alone, for several batch sizes, as it is and compiled by torch.compile, and the whole Predictor (bytes in, masks out on
the host). Then what the last upsampling costs, in strips and in the plain way, which holds [classes, H, W] in memory.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --batches 1,8,32 --no-compile
    python benchmarks/gpu.py --device cpu --batches 1 --size 96x64 --gemm 512   # only to see that it runs
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fcn_core import Architecture, ModelBundle, Predictor, preset, resolve_settings
from fcn_core.inference.argmax import label_pixels
from fcn_core.models.catalogue import cost

GEMM_ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", help="a bundle; default: an untrained full-width FCN-8s VGG16 with 21 classes")
    parser.add_argument("--size", default="500x375", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--batches", default="1,2,4,8,16,32", help="images a pass, with commas")
    parser.add_argument("--gemm", type=int, default=8192, help="side of the square matrices of the ceiling")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each row is measured")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    architecture = Architecture(num_classes=21)
    bundle = ModelBundle.load(options.model) if options.model else ModelBundle.new(architecture, preset("voc"))
    clock = Clock(torch.device(options.device), options.seconds)

    with torch.inference_mode():
        ceiling = gemm_ceiling(options.gemm, clock)
        print(f"{clock.name}, PyTorch {torch.__version__}; {width}x{height}, {bundle.architecture.arch}, bfloat16")
        print(f"ceiling: {ceiling / 1e12:.1f} TFLOP/s in products of {options.gemm}x{options.gemm} matrices\n")
        speeds(bundle, clock, (height, width), [int(each) for each in options.batches.split(",")], ceiling, options)
        heads(bundle, clock, (height, width))


class Clock:
    """Median seconds of calls on a device, each waited for."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device = device
        self._seconds = seconds

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def __call__(self, work: Callable[[], object]) -> float:
        for _ in range(3):
            work()
        times: list[float] = []
        while len(times) < 5 or sum(times) < self._seconds:
            self._wait()
            began = time.perf_counter()
            work()
            self._wait()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def gemm_ceiling(side: int, clock: Clock) -> float:
    """Floating point operations a second in the best of several products."""
    first, second = (torch.randn(side, side, device=clock.device, dtype=torch.bfloat16) for _ in range(2))
    return max(2 * side**3 / clock(lambda: first @ second) for _ in range(GEMM_ROUNDS))


def speeds(
    bundle: ModelBundle,
    clock: Clock,
    size: tuple[int, int],
    batches: list[int],
    ceiling: float,
    options: argparse.Namespace,
) -> None:
    """Print images per second and the share of the ceiling, a row for each batch size."""
    flops = cost(bundle.architecture, size).flops
    network = bundle.build().to(clock.device, torch.bfloat16, memory_format=torch.channels_last)
    compiled = None if options.no_compile else torch.compile(network.scores, dynamic=False)
    table = Table("batch", "network, images/s", "of ceiling", "compiled", "of ceiling", "Predictor", "of ceiling")
    for batch in batches:
        pixels = torch.randn(batch, 3, *size, device=clock.device, dtype=torch.bfloat16)
        pixels = pixels.to(memory_format=torch.channels_last)
        rates = [batch / clock(lambda pixels=pixels: network.scores(pixels))]
        rates.append(batch / clock(lambda pixels=pixels: compiled(pixels)) if compiled else 0.0)
        predictor = Predictor(bundle, resolve_settings(device=options.device, precision="bfloat16", batch_size=batch))
        images = [np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)] * batch
        rates.append(batch / clock(lambda predictor=predictor, images=images: predictor.predict(images)))
        cells = [cell for rate in rates for cell in (f"{rate:.1f}", f"{rate * flops / ceiling:.0%}")]
        table.add_row(str(batch), *(cell if rates[index // 2] else "-" for index, cell in enumerate(cells)))
    Console(width=120).print(table)


def heads(bundle: ModelBundle, clock: Clock, size: tuple[int, int]) -> None:
    """Print what the last upsampling, arg-max and counting cost, in strips and in the plain way."""
    network = bundle.build()
    scores = torch.randn(8, bundle.labels.num_classes, *(-(-side // 8) for side in size), device=clock.device)
    upsampling = network.upsampling(size)

    def plain() -> tuple[Tensor, Tensor]:
        logits = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        masks = logits.argmax(1)
        return masks, torch.stack([mask.flatten().bincount(minlength=scores.shape[1]) for mask in masks])

    rows = {"in strips": lambda: label_pixels(scores, upsampling), "plain": plain}
    table = Table("last upsampling", "ms per image", "peak memory, MB per image")
    for name, work in rows.items():
        seconds = clock(work) / len(scores)
        memory = "-"
        if clock.device.type == "cuda":
            before = torch.cuda.memory_allocated(clock.device)
            torch.cuda.reset_peak_memory_stats(clock.device)
            work()
            memory = f"{(torch.cuda.max_memory_allocated(clock.device) - before) / len(scores) / 1e6:.1f}"
        table.add_row(name, f"{1000 * seconds:.2f}", memory)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
