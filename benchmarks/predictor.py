"""How fast is a Predictor, and how right: against PyTorch as it comes, ONNX Runtime, and OpenVINO by itself.

All take the same images, uint8 RGB in memory, and give masks, except OpenVINO by itself, which stops at the scores: as
benchmark_app would time it, normalisation included. They take turns in one process; a round is a pass over all images.
Ratios are of medians. Agreement is the share of pixels that are as in PyTorch's float32.

    python benchmarks/predictor.py                     # FCN-8s VGG16, 21 classes, 500x375, made-up weights
    python benchmarks/predictor.py --model model/ --images camvid/JPEGImages --labels camvid/SegmentationClass
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tiling import landscape, speaking_bundle

from fcn_core import Architecture, ConfusionMatrix, ModelBundle, Predictor, resolve_settings
from fcn_core.inference.engines.openvino_engine import to_graph
from fcn_core.inference.onnx_export import export_onnx
from fcn_core.inference.quantize import quantize
from fcn_core.inference.reporting_packages import import_onnxruntime, import_openvino

Pixels = npt.NDArray[np.uint8]
Masks = list[Pixels] | None
CALIBRATION = 48


@dataclass
class Contestant:
    """One way to label images; `run` gives masks, or None where it stops before them. seconds: an image, by round."""

    name: str
    run: Callable[[list[Pixels]], Masks]
    seconds: list[float]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    bundle = ModelBundle.load(options.model) if options.model else speaking_bundle(Architecture(num_classes=21))
    paths = sorted(options.images.glob("*.jpg")) if options.images else []
    if paths:
        images = [read(path) for path in paths[:: max(1, len(paths) // options.count)][: options.count]]
        calibration = [read(path) for path in paths[1 :: max(1, len(paths) // CALIBRATION)][:CALIBRATION]]
    else:
        scene = landscape(2000, 2000)
        corners = np.random.default_rng(0).integers(0, 1400, (options.count + 8, 2))
        images = [np.ascontiguousarray(scene[y : y + 375, x : x + 500]) for y, x in corners]
        images, calibration = images[: options.count], images
    contestants = enter(bundle, calibration, images, options)
    agreement = {one.name: agree(one, contestants[0], bundle, options, paths) for one in contestants} if paths else {}

    for one in contestants:
        one.run(images)
    for _ in range(options.rounds):
        for one in contestants:
            began = time.perf_counter()
            one.run(images)
            one.seconds.append((time.perf_counter() - began) / len(images))
    sizes = sorted({f"{image.shape[1]}x{image.shape[0]}" for image in images})
    print(f"{bundle.architecture.arch} on {bundle.architecture.backbone}, {bundle.architecture.num_classes} classes")
    print(f"{len(images)} images of {', '.join(sizes)}, {options.threads} threads, {options.rounds} rounds")
    print_table(contestants, agreement)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a bundle; default: FCN-8s VGG16 with made-up weights")
    parser.add_argument("--int8", help="folder of its int8 bundle; default: one is made, with images of these")
    parser.add_argument("--images", type=Path, help="folder of .jpg files; default: made-up pictures of 500x375")
    parser.add_argument("--labels", type=Path, help="folder of masks with the images' names, for mean IoU")
    parser.add_argument(
        "--names", type=Path, help="file with the names, one per line, of the images to compare masks on"
    )
    parser.add_argument("--count", type=int, default=8, help="images a round")
    parser.add_argument("--compared", type=int, default=24, help="images to compare masks on")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def enter(
    bundle: ModelBundle, calibration: list[Pixels], images: list[Pixels], options: argparse.Namespace
) -> list[Contestant]:
    """Everybody, plain PyTorch first."""

    def plain(layout: torch.memory_format) -> Callable[[list[Pixels]], Masks]:
        model = bundle.build().to(memory_format=layout)

        def run(batch: list[Pixels]) -> Masks:
            masks = []
            with torch.inference_mode():
                for image in batch:
                    x = bundle.normalization.apply(torch.from_numpy(image).permute(2, 0, 1)[None])
                    masks.append(model(x.contiguous(memory_format=layout)).argmax(1)[0].to(torch.uint8).numpy())
            return masks

        return run

    def ours(of: ModelBundle, **settings: str) -> Callable[[list[Pixels]], Masks]:
        predictor = Predictor(of, resolve_settings(device="cpu", threads=options.threads, **settings))
        return lambda batch: [result.mask for result in predictor.predict(batch)]

    int8 = ModelBundle.load(options.int8) if options.int8 else quantize(bundle, calibration)[0]
    notes = int8.provenance["int8"]
    print(
        f"int8: {notes['equal_pixels']:.4%} of the pixels of {notes['compared_images']} images kept out of calibration"
    )
    return [
        Contestant("PyTorch, float32", plain(torch.contiguous_format), []),
        Contestant("PyTorch, float32, channels last", plain(torch.channels_last), []),
        Contestant("ONNX Runtime, float32", onnx_runtime(bundle, options.threads), []),
        Contestant("OpenVINO, bfloat16, scores only", bare_openvino(bundle, images[0].shape, options.threads), []),
        Contestant("Predictor", ours(bundle), []),
        Contestant("Predictor, engine torch", ours(bundle, engine="torch"), []),
        Contestant("Predictor, int8", ours(int8), []),
    ]


def onnx_runtime(bundle: ModelBundle, threads: int) -> Callable[[list[Pixels]], Masks]:
    onnxruntime = import_onnxruntime()

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(bundle, f"{folder}/model.onnx").path
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda batch: [session.run(["mask"], {"image": image[None]})[0][0] for image in batch]


def bare_openvino(bundle: ModelBundle, size: tuple[int, ...], threads: int) -> Callable[[list[Pixels]], Masks]:
    """The graph compiled for one size, with the settings of benchmark_app -hint latency."""
    openvino = import_openvino()

    graph = to_graph(bundle)
    graph.reshape([1, *size])
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(graph, "CPU", hints).create_infer_request()

    def run(batch: list[Pixels]) -> Masks:
        for image in batch:
            request.infer([image[None]], share_inputs=True, share_outputs=True)
        return None

    return run


def agree(
    one: Contestant, plain: Contestant, bundle: ModelBundle, options: argparse.Namespace, paths: list[Path]
) -> tuple[float, float | None]:
    """(share of pixels that are as in plain float32, mean IoU or None)."""
    if options.names:
        wanted = set(options.names.read_text().split())
        paths = [path for path in paths if path.stem in wanted]
    paths = paths[:: max(1, len(paths) // options.compared)][: options.compared]
    equal = pixels = 0
    matrix = ConfusionMatrix(bundle.labels.num_classes, bundle.labels.ignore_index)
    for path in paths:
        image = read(path)
        masks, expected = one.run([image]), reference(path, plain)
        if masks is None:
            return float("nan"), None
        equal, pixels = equal + int((masks[0] == expected).sum()), pixels + expected.size
        if options.labels:
            truth = np.asarray(Image.open(options.labels / f"{path.stem}.png"))
            matrix.update(truth, masks[0])
    return equal / pixels, matrix.scores().mean_iou if options.labels else None


_references: dict[Path, Pixels] = {}


def reference(path: Path, plain: Contestant) -> Pixels:
    """The mask of plain float32, computed once."""
    if path not in _references:
        masks = plain.run([read(path)])
        assert masks is not None
        _references[path] = masks[0]
    return _references[path]


def read(path: Path) -> Pixels:
    return np.array(Image.open(path).convert("RGB"))


def print_table(contestants: list[Contestant], agreement: dict[str, tuple[float, float | None]]) -> None:
    medians = {one.name: statistics.median(one.seconds) for one in contestants}
    eager, bare = medians["PyTorch, float32"], medians["OpenVINO, bfloat16, scores only"]
    print(f"\n| {'':32} | s per image | x PyTorch | x OpenVINO | equal pixels | mean IoU |")
    print(f"|{'-' * 34}|{'-' * 12}|{'-' * 11}|{'-' * 12}|{'-' * 14}|{'-' * 9}|")
    for name, seconds in medians.items():
        equal, mean_iou = agreement.get(name, (float("nan"), None))
        share = "" if np.isnan(equal) else f"{equal:.3%}"
        score = "" if mean_iou is None else f"{mean_iou:.4f}"
        ratios = f"{eager / seconds:9.2f} | {bare / seconds:10.2f}"
        print(f"| {name:32} | {seconds:10.4f} | {ratios} | {share:>12} | {score:>7} |")


if __name__ == "__main__":
    main()
