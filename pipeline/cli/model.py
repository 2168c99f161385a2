"""`fcn model ...`: make, show and convert model bundles."""

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from fcn_core.models.architecture import Doubling
from fcn_core.models.backbones import BackboneName
from fcn_core.models.networks import ArchName
from fcn_core.text.printable import printable, printable_lines
from pipeline.cli.common import DONE, Flag
from pipeline.cli.model_onnx import import_onnx_file
from pipeline.cli.model_quantize import quantize
from pipeline.errors import InputError

if TYPE_CHECKING:
    from fcn_core.weights.importing import Imported

model_app = App(name="model", help="Networks and model bundles: list, make, show.")
model_app.command(quantize)


@model_app.command
def new(
    *,
    directory: Annotated[Path, Parameter(name=["--output", "-o"])],
    labels: str = "voc",
    arch: ArchName = "fcn8s",
    backbone: BackboneName | None = None,
    width: float = 1.0,
    head_width: int | None = None,
    upsampling: Doubling | None = None,
    seed: int = 0,
    overwrite: Flag = False,
) -> int:
    """Make an untrained model bundle. `fcn model list` shows the networks.

    Images are normalised as the network's weights usually want it: the padded networks take BGR less a mean, as the
    authors' do, all others RGB with ImageNet's mean and deviation.

    Parameters
    ----------
    directory
        The folder to write.
    labels
        A label set: voc, camvid, cityscapes or a .json file.
    arch
        The network.
    backbone
        Backbone network. Default: vgg16, or what the network is made for.
    width
        Multiplies the backbone's channels.
    head_width
        Channels of fc6 and fc7. Default: by backbone, 4096 for vgg16.
    upsampling
        How coarse scores are doubled: learned (the default), or fixed bilinear.
    seed
        For the random weights.
    overwrite
        Replace another model in that folder.
    """
    from fcn_core import Architecture, ModelBundle
    from fcn_core.labels import find_labels
    from fcn_core.models.networks import network_spec

    label_set = find_labels(labels)
    chosen = {"backbone": backbone, "head_width": head_width, "upsampling": upsampling}
    architecture = Architecture.model_validate(
        {"arch": arch, "num_classes": label_set.num_classes, "width": width}
        | {name: value for name, value in chosen.items() if value is not None}
    )
    bundle = ModelBundle.new(architecture, label_set, network_spec(arch).normalization, seed=seed)
    bundle.save(directory, overwrite=overwrite)
    print(
        f"{directory}: untrained {arch} on {architecture.backbone}, {label_set.num_classes} classes,"
        f" model_id {bundle.model_id}"
    )
    return DONE


@model_app.command(name="list")
def list_networks(*, size: str = "500x375", classes: int = 21, json: Flag = False) -> int:
    """List the networks: parameters, cost of one image, and the scores published for weights that run on them.

    Parameters
    ----------
    size
        Width and height of the image whose cost is shown.
    classes
        Number of classes to score.
    json
        Print it as JSON, with all published scores and their sources.
    """
    from fcn_core.models.catalogue import CATALOGUE, cost
    from pipeline.cli import console

    numbers = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", size)
    if not numbers:
        raise InputError(f"--size is width x height in pixels, like 500x375, not {size!r}")
    width, height = (int(number) for number in numbers.groups())
    costs = [cost(entry.architecture(classes), (height, width)) for entry in CATALOGUE]
    if json:
        console.print_json(
            [
                {"arch": entry.arch, "backbone": entry.backbone, "geometry": entry.geometry, "summary": entry.summary}
                | {"classes": classes, "width": width, "height": height}
                | {"parameters": price.parameters, "gflops": round(price.flops / 1e9, 3)}
                | {"published": [asdict(scores) for scores in entry.published]}
                for entry, price in zip(CATALOGUE, costs, strict=True)
            ]
        )
        return DONE
    print(f"{'arch':20}{'backbone':20}{'parameters':>11}{'GFLOPs':>9}{'mean IoU':>9}  what it is")
    for entry, price in zip(CATALOGUE, costs, strict=True):
        mean_iou = f"{entry.published[0].mean_iou:.1f}" if entry.published else "-"
        print(
            f"{entry.arch:20}{entry.backbone:20}{price.parameters / 1e6:>9.1f} M{price.flops / 1e9:>9.1f}{mean_iou:>9}"
            f"  {entry.summary}"
        )
    print(f"\nGFLOPs: one {width}x{height} image, {classes} classes. Mean IoU: as published, on the data --json names.")
    return DONE


@model_app.command(name="import")
def import_file(
    file: Path,
    *,
    directory: Annotated[Path, Parameter(name=["--output", "-o"])],
    arch: ArchName | None = None,
    backbone: BackboneName | None = None,
    labels: str | None = None,
    input_as: Annotated[Literal["caffe", "imagenet"] | None, Parameter(name="--input")] = None,
    mean: Annotated[tuple[float, float, float] | None, Parameter(negative="")] = None,
    std: Annotated[tuple[float, float, float] | None, Parameter(negative="")] = None,
    channel_order: Literal["rgb", "bgr"] | None = None,
    size: str | None = None,
    multiple_of: int | None = None,
    graph_output: Annotated[str | None, Parameter(name="--output-name")] = None,
    width: float | None = None,
    head_width: int | None = None,
    upsampling: Doubling | None = None,
    seed: int = 0,
    overwrite: Flag = False,
) -> int:
    """Make a model bundle of somebody's weights, and say what became of each tensor; or of a whole ONNX graph.

    What is not given is as in the file, as far as that tells. docs/weights.md has the sources and how to import each.
    An .onnx file is a network of its own, which predicts as it is: it takes --labels, --mean and --std, and no --arch
    (docs/models.md).

    Parameters
    ----------
    file
        A Caffe model (.caffemodel), PyTorch checkpoint, .safetensors file, another model bundle (a folder), or an ONNX
        graph (.onnx).
    directory
        The folder to write.
    arch
        The network that gets the weights; needed for all but ONNX graphs.
    backbone
        Backbone network. Default: the file's.
    labels
        A label set: voc, camvid, cityscapes or a .json file. If it is not the file's, score layers are made anew.
        Default: a bundle's own; for other files voc.
    input_as
        What the network takes: caffe (BGR 0..255, less a mean) or imagenet (RGB 0..1, less a mean, divided by a
        deviation). Default: by whose names the file uses.
    mean
        Another mean than that input's: three numbers, in its order of channels. Of an ONNX graph's input: for pixels in
        0..1, or in 0..255 if a mean or deviation is above 1.
    std
        Deviation by which an ONNX graph's input is divided, in the units of --mean.
    channel_order
        Order of an ONNX graph's input channels. Default: rgb.
    size
        Width and height to which images are resized for an ONNX graph, like 512x512. Default: the graph's, if it is
        fixed, else each image's own.
    multiple_of
        Images are padded to multiples of this for an ONNX graph. Default: 1.
    graph_output
        The output of an ONNX graph that has several.
    width
        Multiplies the backbone's channels. Default: a bundle's own; for other files 1.
    head_width
        Channels of fc6 and fc7. Default: the file's.
    upsampling
        How coarse scores are doubled: learned, or fixed bilinear.
    seed
        For the layers that the file does not have.
    overwrite
        Replace another model in that folder.
    """
    from fcn_core.labels import find_labels
    from fcn_core.normalization import CAFFE, IMAGENET
    from fcn_core.weights.importing import import_weights

    if file.suffix == ".onnx":
        theirs = {"--arch": arch, "--backbone": backbone, "--input": input_as, "--width": width}
        theirs |= {"--head-width": head_width, "--upsampling": upsampling}
        if unfit := [name for name, value in theirs.items() if value is not None]:
            raise InputError(f"an ONNX graph is a network of its own: leave out {', '.join(unfit)}")
        return import_onnx_file(
            file,
            directory,
            labels=labels,
            mean=mean,
            std=std,
            channel_order=channel_order or "rgb",
            size=size,
            multiple_of=multiple_of or 1,
            output=graph_output,
            overwrite=overwrite,
        )
    ours = {"--std": std, "--channel-order": channel_order, "--size": size, "--multiple-of": multiple_of}
    if unfit := [name for name, value in (ours | {"--output-name": graph_output}).items() if value is not None]:
        raise InputError(f"{', '.join(unfit)} goes with an .onnx file alone; leave it out")
    if arch is None:
        raise InputError("give --arch, the network that gets the weights; `fcn model list` shows them")
    if mean is not None and input_as is None:
        raise InputError("--mean goes with --input caffe or --input imagenet, whose mean it replaces")
    normalization = {"caffe": CAFFE, "imagenet": IMAGENET, None: None}[input_as]
    if normalization is not None and mean is not None:
        normalization = type(normalization).model_validate(normalization.model_dump() | {"mean": mean})
    imported = import_weights(
        file,
        arch,
        backbone=backbone,
        labels=find_labels(labels) if labels else None,
        normalization=normalization,
        width=width,
        head_width=head_width,
        upsampling=upsampling,
        seed=seed,
    )
    return _save_imported(imported, directory, overwrite=overwrite)


@model_app.command
def get(
    name: str,
    *,
    directory: Annotated[Path, Parameter(name=["--output", "-o"])],
    arch: ArchName | None = None,
    labels: str | None = None,
    head_width: int | None = None,
    upsampling: Doubling | None = None,
    overwrite: Flag = False,
) -> int:
    """Fetch weights that torchvision publishes, check their hash, and make a model bundle of them.

    fcn_resnet50 and 101, deeplabv3_resnet50 and 101, deeplabv3_mobilenet_v3_large and lraspp_mobilenet_v3_large know
    VOC's classes and are complete. vgg16, vgg16_bn, alexnet, resnet50, resnet101 and mobilenet_v3_large are
    classifiers: the network has still to be trained. Files are kept in torch.hub's cache (TORCH_HOME).

    Parameters
    ----------
    name
        What to fetch.
    directory
        The folder to write.
    arch
        The network that gets the weights. Default: the one they are for, fcn8s for classifiers.
    labels
        A label set: voc, camvid, cityscapes or a .json file. Default: voc.
    head_width
        Channels of fc6 and fc7. Default: by backbone.
    upsampling
        How coarse scores are doubled: learned, or fixed bilinear.
    overwrite
        Replace another model in that folder.
    """
    from fcn_core.labels import find_labels
    from fcn_core.weights.published import find_published, get_weights

    imported = get_weights(
        find_published(name),
        arch=arch,
        labels=find_labels(labels) if labels else None,
        head_width=head_width,
        upsampling=upsampling,
        say=lambda sentence: print(sentence, file=sys.stderr),
    )
    return _save_imported(imported, directory, overwrite=overwrite)


def _save_imported(imported: "Imported", directory: Path, *, overwrite: bool) -> int:
    bundle = imported.bundle
    bundle.save(directory, overwrite=overwrite)
    for note in imported.notes:
        print(printable(note))
    print(printable_lines(str(imported.report)))
    state = f"train it before use, these layers are new: {', '.join(imported.untrained)}"
    print(
        f"{directory}: {bundle.architecture.title}, labels"
        f" {printable(bundle.labels.name)} ({bundle.labels.num_classes} classes), model_id {bundle.model_id};"
        f" {state if imported.untrained else 'complete'}"
    )
    return DONE


@model_app.command
def show(model: str, *, registry: str | None = None, json: Flag = False) -> int:
    """Show what a model bundle is.

    Parameters
    ----------
    model
        The folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION.
    registry
        The folder or URI where registry:... models are. Default: FCN_REGISTRY.
    json
        Print it as JSON.
    """
    from pipeline.cli import console
    from pipeline.models.load import load_bundle

    bundle = load_bundle(model, registry)
    description = {
        "model_id": bundle.model_id,
        "architecture": bundle.architecture.model_dump(mode="json"),
        **({} if bundle.onnx else {"parameters": sum(tensor.numel() for tensor in bundle.state.values())}),
        "labels": bundle.labels.model_dump(mode="json"),
        "normalization": bundle.normalization.model_dump(mode="json"),
        "provenance": dict(bundle.provenance),
        "scores": dict(bundle.scores),
    }
    if json:
        console.print_json(description)
        return DONE
    for name, value in description.items():
        if name == "labels":
            value = f"{bundle.labels.name}: {', '.join(bundle.labels.names)}"
        elif isinstance(value, dict):
            value = ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
        print(f"{name:15}{value:,}" if isinstance(value, int) else f"{name:15}{printable(str(value))}")
    return DONE


@model_app.command
def export(
    model: str, *, output: Annotated[Path, Parameter(name=["--output", "-o"])], registry: str | None = None
) -> int:
    """Write a model bundle as one ONNX file, for programs that have no PyTorch; labels go into OUTPUT.json too.

    The graph takes bytes of RGB of any size and batch, and is compared with the model before it is written. It needs
    the extra packages of fcn-pipeline[onnx].

    Parameters
    ----------
    model
        The folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION.
    registry
        The folder or URI where registry:... models are. Default: FCN_REGISTRY.
    output
        The file to write, such as model.onnx.
    """
    from fcn_core.inference.onnx_export import export_onnx, require_packages
    from pipeline.models.load import load_bundle

    require_packages()
    report = export_onnx(load_bundle(model, registry), output)
    print(f"{report.path}: {report.size:,} bytes; image uint8 [batch, height, width, 3] -> logits, mask")
    print(f"{report.description}: labels, normalisation and all else that the file's metadata holds")
    print(f"compared with the model: logits within {report.worst:.1e} of the largest, {report.differing} pixels differ")
    return DONE
