"""Do planted label errors come first among `fcn data suspects`? Street scenes with true masks, some of them spoilt.

A third of the errors each: the mask shifted by 8 to 16 pixels both ways, two classes swapped, one class painted over by
what is beside it. Prints for each draw how many are among the first tenth of the images. MODEL knows the demo's classes
and has seen none of these scenes (`make demo` trains one, at scenes of other seeds).

    python benchmarks/suspects.py MODEL --images 120
"""

import argparse

import numpy as np
import numpy.typing as npt

from fcn_core import Predictor, resolve_settings
from fcn_core.data.datasets import Pair
from fcn_core.inference.predictor import Outputs
from fcn_core.metrics import ConfusionMatrix
from flows.demo.scenes import SCENE_LABELS, generate_scene
from pipeline.insight.doubt import doubt
from pipeline.insight.suspects import ranked
from pipeline.models.load import load_bundle

Mask = npt.NDArray[np.uint8]

KINDS = ("shifted", "swapped", "missing")
FIRST_SEED = 90_000
WORTH_AN_ERROR = 0.01
"""A class is spoilt only where it has that share of the pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or URI of a bundle, or registry:NAME")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--share", type=float, default=0.05, help="of the masks that are spoilt")
    parser.add_argument("--first", type=float, default=0.1, help="of the images that are looked through")
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()

    predictor = Predictor(load_bundle(options.model), resolve_settings(device="auto"))
    scenes = [generate_scene(FIRST_SEED + seed, 256, 192) for seed in range(options.images)]
    answers = [predictor.predict([scene.image], Outputs(probabilities=True))[0] for scene in scenes]
    classes = SCENE_LABELS.num_classes
    matrix = ConfusionMatrix(classes, SCENE_LABELS.ignore_index)
    for scene, answer in zip(scenes, answers, strict=True):
        matrix.update(scene.mask, answer.mask)
    print(f"{options.images} scenes, mean IoU of the model {matrix.scores().mean_iou:.3f}")

    print("\n| draw | errors | found among the first | not found |\n|---|---|---|---|")
    for draw in range(options.draws):
        rng = np.random.default_rng(draw)
        chosen = rng.choice(options.images, max(len(KINDS), round(options.share * options.images)), replace=False)
        errors = {int(index): KINDS[place % len(KINDS)] for place, index in enumerate(np.sort(chosen))}
        looked = []
        for index, (scene, answer) in enumerate(zip(scenes, answers, strict=True)):
            mask = spoilt(scene.mask, errors[index], rng) if index in errors else scene.mask
            assert answer.probabilities is not None
            upsampling = predictor.upsampling(*mask.shape)
            found = doubt(mask, answer.mask, answer.probabilities, upsampling, classes)
            looked.append(("val", Pair(str(index), "", ""), found))
        order = [int(suspect.pair.name) for suspect in ranked(looked, SCENE_LABELS)]
        first = set(order[: round(options.first * options.images)])
        gone = ", ".join(
            f"{kind} at {order.index(i) + 1 if i in order else '-'}" for i, kind in errors.items() if i not in first
        )
        print(f"| {draw} | {len(errors)} | {len(first & errors.keys())} of {len(errors)} | {gone or '-'} |")


def spoilt(mask: Mask, kind: str, rng: np.random.Generator) -> Mask:
    """A mask, uint8 [H, W], with an error that people make."""
    if kind == "shifted":
        down, right = rng.integers(8, 17, 2) * rng.choice([-1, 1], 2)
        return np.roll(mask, (int(down), int(right)), (0, 1))
    there = [
        i for i in np.unique(mask).tolist() if i < SCENE_LABELS.num_classes and (mask == i).mean() > WORTH_AN_ERROR
    ]
    wrong = mask.copy()
    if kind == "swapped":
        first, second = rng.choice(there, 2, replace=False)
        wrong[mask == first], wrong[mask == second] = second, first
        return wrong
    things = [i for i in there if SCENE_LABELS.names[i] in ("car", "person", "tree", "pole", "building")] or there
    gone = rng.choice(things)
    for row in wrong:
        bad, good = np.flatnonzero(row == gone), np.flatnonzero(row != gone)
        row[bad] = row[good[np.abs(good[None] - bad[:, None]).argmin(axis=1)]] if good.size else there[0]
    return wrong


if __name__ == "__main__":
    main()
