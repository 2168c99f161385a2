"""What does an aerial photograph cost: memory, time, and multiplications beyond those of one pass?

Segments one large image by exact tiling, in a fresh process, and prints the highest resident memory the process ever
had (image, model, PyTorch itself and all) and the tiles' multiplications against those of the whole image, counted on
tensors without data.

    python benchmarks/tiling.py                        # 10000x10000, FCN-8s VGG16, bfloat16 where the CPU has it
    python benchmarks/tiling.py --size 3000x4000 --backbone mobilenet_v3_large
    python benchmarks/tiling.py --count-only
"""

import argparse
import resource
import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fcn_core import Architecture, ModelBundle, Predictor, build, preset, resolve_settings
from fcn_core.inference.settings import TILE_PIXELS
from fcn_core.inference.tiling import plan_tiles, tiled_scores
from fcn_core.models.backbones import BACKBONES
from fcn_core.models.networks import ARCHS

Image = npt.NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10000x10000", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--arch", choices=ARCHS, default="fcn8s")
    parser.add_argument("--backbone", choices=BACKBONES)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--tile-pixels", type=int, default=TILE_PIXELS)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--count-only", action="store_true", help="only count multiplications")
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    chosen = {"arch": options.arch, "num_classes": 21} | ({"backbone": options.backbone} if options.backbone else {})
    architecture = Architecture.model_validate(chosen)

    print(f"{architecture.arch} on {architecture.backbone}, {width}x{height} pixels ({width * height / 1e6:.0f} MP)")
    count(architecture, height, width, options.tile_pixels)
    if options.count_only:
        return
    settings = resolve_settings(
        device="cpu", precision=options.precision, tile_pixels=options.tile_pixels, threads=options.threads
    )
    predictor = Predictor(speaking_bundle(architecture), settings)
    print(f"{settings.precision}, {settings.threads} threads; peak memory with the model ready: {peak_gb():.2f} GB")
    predict_one(predictor, height, width)


def predict_one(predictor: Predictor, height: int, width: int) -> None:
    """Segment one image and print the process's peak memory and the time that it took."""
    image = landscape(height, width)
    began = time.perf_counter()
    (result,) = predictor.predict([image])
    seconds = time.perf_counter() - began
    kept = (image.nbytes + result.mask.nbytes) / 1e9
    print(f"peak memory: {peak_gb():.2f} GB, of which {kept:.2f} GB are image and mask")
    print(f"time: {seconds:.1f} s; classes in the mask: {np.count_nonzero(result.areas)}")


def count(architecture: Architecture, height: int, width: int, tile_pixels: int) -> None:
    """Print the tiles and their multiplications against those of one pass."""
    with torch.device("meta"):
        network = build(architecture).eval()

    def prepare(part: Image) -> Tensor:
        return torch.empty((1, 3, *part.shape[:2]), device="meta")

    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (height, width, 3))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as tiled:
            tiled_scores(network, image, prepare, tile_pixels)
        with FlopCounterMode(display=False) as whole:
            network.scores(prepare(image))
    tiles = len(plan_tiles(height + 2 * network.border, width + 2 * network.border, network.reach(), tile_pixels))
    ratio = tiled.get_total_flops() / whole.get_total_flops()
    print(
        f"{tiles} tiles with a margin of {network.reach()} pixels or a little more:"
        f" {tiled.get_total_flops() / 1e12:.2f} TFLOP, {ratio:.3f} of the whole image's"
    )


def speaking_bundle(architecture: Architecture) -> ModelBundle:
    """An untrained network whose score layers are random instead of zero, so that its mask has classes."""
    torch.manual_seed(0)
    network = build(architecture)
    for name, layer in network.named_modules():
        if "score" in name and isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.01)
    return ModelBundle.from_model(network, preset("voc"))


def landscape(height: int, width: int) -> Image:
    """Fields of colour with noise: a pattern, repeated."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((61, 61, 1)))
    pattern = (fields + rng.normal(0, 8, fields.shape)).clip(0, 255).astype(np.uint8)
    repeats = (-(-height // len(pattern)), -(-width // len(pattern)), 1)
    return np.ascontiguousarray(np.tile(pattern, repeats)[:height, :width])


def peak_gb() -> float:
    """The highest resident memory of this process so far, in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
