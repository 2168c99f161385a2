"""How many pixels of a mask change with settings that are said to change few?

Segments the same images with the settings of this machine and with one of them changed, and prints the share of the
pixels, of all images together, that have another class. It depends on the model and on the images: use your own.

    python benchmarks/changed_pixels.py --model model/ --images photos/
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcn_core import ModelBundle, Predictor, PredictorSettings, resolve_settings
from fcn_core.data.datasets import decode_rgb
from fcn_core.inference import openvino_runtime
from fcn_core.inference.settings import has_bfloat16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG or PNG files")
    parser.add_argument("--count", type=int, default=20, help="images at most")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    bundle = ModelBundle.load(options.model)
    files = sorted(path for path in options.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    images = [decode_rgb(path.read_bytes(), path.name) for path in islice(files, options.count)]
    usual = resolve_settings(device="cpu", threads=options.threads)
    base = masks_of(bundle, images, usual)
    print(f"{len(images)} images; {usual.engine} in {usual.precision}, snap {usual.snap}\n")
    print("| changed setting | pixels of another class |\n|---|---|")
    for name, settings in variants(usual).items():
        found = masks_of(bundle, images, settings)
        changed = sum(int((one != other).sum()) for one, other in zip(base, found, strict=True))
        print(f"| {name} | {changed / sum(mask.size for mask in base):.3%} |", flush=True)


def variants(usual: PredictorSettings) -> dict[str, PredictorSettings]:
    """Settings that differ from the usual ones in one thing, by what that is; those that this machine has."""
    found = {f"snap {snap}": usual.model_copy(update={"snap": snap}) for snap in (32, 64)}
    if has_bfloat16("cpu"):
        other = "float32" if usual.precision == "bfloat16" else "bfloat16"
        found[other] = usual.model_copy(update={"precision": other})
    if openvino_runtime.is_installed():
        engine = "torch" if usual.engine == "openvino" else "openvino"
        found[f"engine {engine}"] = usual.model_copy(update={"engine": engine})
    return found


def masks_of(
    bundle: ModelBundle, images: list[npt.NDArray[np.uint8]], settings: PredictorSettings
) -> list[npt.NDArray[np.uint8]]:
    predictor = Predictor(bundle, settings)
    return [predictor.predict([image])[0].mask for image in images]


if __name__ == "__main__":
    main()
