"""Do images that `fcn rank --diverse` chooses teach a model more than images taken by chance? The demo's street scenes.

A first model is trained on a few scenes. Then come rounds: choose images of a pool, "annotate" them (the scenes' true
masks), train on from the model before with all that is annotated by then, and score on scenes of no pool. All
ways of choosing begin with the same model, take the same number of steps, and have the same pool. Prints the mean IoU
after each round, and the difference from choosing by chance over the draws, as pairs, with its standard error.

    python benchmarks/loop.py --draws 5 --threads 2
    python benchmarks/loop.py --draws 5 --threads 2 --frames 10

With --frames the pool is what cameras record: each scene as that many frames, a few pixels apart.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fcn_core import Architecture, ModelBundle, Predictor, resolve_settings
from fcn_core.data.augmentation import Augmentation
from fcn_core.data.datasets import Example, InMemory
from fcn_core.inference.predictor import Outputs
from fcn_core.metrics import ConfusionMatrix
from fcn_core.training.config import TrainConfig
from fcn_core.training.trainer import Trainer
from flows.demo.scenes import SCENE_LABELS, Scene, generate_scene
from pipeline.insight.diverse import CANDIDATES, k_center

WIDTH, HEIGHT = 160, 120
FIRST_SEED = 200_000

Choose = Callable[[Predictor, Sequence[Scene], int, np.random.Generator], list[int]]


def by_chance(predictor: Predictor, pool: Sequence[Scene], count: int, rng: np.random.Generator) -> list[int]:
    return [int(place) for place in rng.choice(len(pool), count, replace=False)]


def by_confidence(predictor: Predictor, pool: Sequence[Scene], count: int, rng: np.random.Generator) -> list[int]:
    return _least_confident(predictor, pool)[0][:count]


def diverse(predictor: Predictor, pool: Sequence[Scene], count: int, rng: np.random.Generator) -> list[int]:
    order, features = _least_confident(predictor, pool)
    candidates = order[: CANDIDATES * count]
    return [candidates[place] for place, _ in k_center(features[candidates], count)]


def _least_confident(predictor: Predictor, pool: Sequence[Scene]) -> tuple[list[int], np.ndarray]:
    found = [predictor.predict([scene.image], Outputs(features=True))[0] for scene in pool]
    confidence = np.array([each.confidence for each in found])
    features = np.stack([each.features for each in found if each.features is not None]).astype(np.float32)
    return [int(place) for place in confidence.argsort(kind="stable")], features


WAYS: dict[str, Choose] = {"by chance": by_chance, "confidence": by_confidence, "confidence, diverse": diverse}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=30, help="per round")
    parser.add_argument("--first", type=int, default=20, help="annotated before the first round")
    parser.add_argument("--pool", type=int, default=400)
    parser.add_argument(
        "--frames", type=int, default=1, help="of each scene in the pool, whose size they do not change"
    )
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--steps", type=int, default=250, help="of each training; the first has twice as many")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-seconds", type=float, help="begin no further draw after this long")
    options = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(options.threads)

    test = [generate_scene(FIRST_SEED - 1 - place, WIDTH, HEIGHT) for place in range(options.test)]
    scores: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    print("| draw | chosen | annotated | mean IoU |\n|---|---|---|---|", flush=True)
    for draw in range(options.draws):
        if options.max_seconds is not None and time.monotonic() - started > options.max_seconds:
            print(f"\nstopped after {draw} draws")
            break
        start = FIRST_SEED + draw * (options.first + options.pool)
        few = [generate_scene(start + place, WIDTH, HEIGHT) for place in range(options.first)]
        recorded = frames(start + options.first, options.pool, options.frames)
        first = train(None, few, 2 * options.steps, draw)
        base = mean_iou(first, test, options.threads)
        print(f"| {draw} | - | {options.first} | {base:.3f} |", flush=True)
        for way, choose in WAYS.items():
            rng = np.random.default_rng(draw)
            model, annotated, pool = first, few, recorded
            scores[way].append([base])
            for _ in range(options.rounds):
                predictor = Predictor(model, resolve_settings(device="cpu", threads=options.threads))
                chosen = set(choose(predictor, pool, options.images, rng))
                annotated = annotated + [pool[place] for place in sorted(chosen)]
                pool = [scene for place, scene in enumerate(pool) if place not in chosen]
                model = train(model, annotated, options.steps, draw)
                scores[way][-1].append(mean_iou(model, test, options.threads))
                print(f"| {draw} | {way} | {len(annotated)} | {scores[way][-1][-1]:.3f} |", flush=True)
    summarize({way: np.array(found) for way, found in scores.items()})
    print(f"\n{time.monotonic() - started:.0f} s, {options.threads} threads")


def frames(start: int, pool: int, per_scene: int) -> list[Scene]:
    """`pool` images: windows of scenes that a camera which moves by two pixels per frame sees."""
    found: list[Scene] = []
    for seed in range(start, start + -(-pool // per_scene)):
        wide = generate_scene(seed, WIDTH + 2 * (per_scene - 1), HEIGHT)
        lefts = range(0, 2 * per_scene, 2)
        found += [Scene(wide.image[:, x : x + WIDTH], wide.mask[:, x : x + WIDTH]) for x in lefts]
    return found[:pool]


def train(model: ModelBundle | None, scenes: Sequence[Scene], steps: int, seed: int) -> ModelBundle:
    """A new model, or `model` trained on."""
    architecture = Architecture(
        arch="fcn8s", num_classes=SCENE_LABELS.num_classes, width=0.25, head_width=64, dropout=0.0
    )
    bundle = model or ModelBundle.new(architecture, SCENE_LABELS, seed=seed)
    data = InMemory([Example(str(i), scene.image, scene.mask) for i, scene in enumerate(scenes)], SCENE_LABELS)
    config = TrainConfig(
        steps=steps,
        batch_size=4,
        learning_rate=3e-3 if model is None else 1e-3,
        warmup_steps=20,
        max_grad_norm=1.0,
        seed=seed,
        augmentation=Augmentation(crop_height=96, crop_width=128, scale_min=0.8, scale_max=1.25),
    )
    trainer = Trainer(bundle.build(), data, config, bundle.normalization)
    for _ in trainer.run():
        pass
    return trainer.bundle()


def mean_iou(model: ModelBundle, scenes: Sequence[Scene], threads: int) -> float:
    predictor = Predictor(model, resolve_settings(device="cpu", threads=threads))
    matrix = ConfusionMatrix(SCENE_LABELS.num_classes, SCENE_LABELS.ignore_index)
    for scene in scenes:
        matrix.update(scene.mask, predictor.predict([scene.image])[0].mask)
    found = matrix.scores().mean_iou
    assert found is not None
    return found


def summarize(scores: dict[str, np.ndarray]) -> None:
    """`scores`: float [draws, rounds + 1] of each way."""
    chance = scores["by chance"]
    rounds = chance.shape[1] - 1
    heads = " | ".join(f"round {number}" for number in range(1, rounds + 1))
    print(f"\n{len(chance)} draws: mean IoU, and its difference from choosing by chance\n")
    print(f"| chosen | before | {heads} | difference after the last | draws in which it is better |")
    print("|---" * (rounds + 4) + "|")
    for way, found in scores.items():
        gain = found[:, -1] - chance[:, -1]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
        means = " | ".join(f"{value:.3f}" for value in found.mean(axis=0))
        better = (
            f"{gain.mean():+.3f} ± {error:.3f} | {(gain > 0).sum()} of {len(gain)}" if way != "by chance" else "- | -"
        )
        print(f"| {way} | {means} | {better} |")


if __name__ == "__main__":
    main()
