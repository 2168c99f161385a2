"""`fcn model ...`: make, show and convert model bundles."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from pipeline.cli_common import DONE, Flag

model_app = App(name="model", help="Model bundles: make, show.")


@model_app.command
def new(
    *,
    directory: Annotated[Path, Parameter(name=["--output", "-o"])],
    labels: str = "voc",
    arch: Literal["fcn32s", "fcn16s", "fcn8s"] = "fcn8s",
    backbone: Literal["vgg16"] = "vgg16",
    width: float = 1.0,
    head_width: int = 4096,
    upsampling: Literal["transposed", "interpolate"] = "transposed",
    seed: int = 0,
    overwrite: Flag = False,
) -> int:
    """Make an untrained model bundle.

    Parameters
    ----------
    directory
        The folder to write.
    labels
        A label set: voc, camvid or cityscapes.
    arch
        The network: how fine its scores are before the last upsampling.
    backbone
        What it stands on.
    width
        Multiplies the backbone's channels.
    head_width
        Channels of fc6 and fc7.
    upsampling
        How coarse scores are doubled: learned, or fixed bilinear.
    seed
        For the random weights.
    overwrite
        Replace another model in that folder.
    """
    from fcn_core import Architecture, ModelBundle, preset

    label_set = preset(labels)
    architecture = Architecture(
        arch=arch,
        backbone=backbone,
        num_classes=label_set.num_classes,
        width=width,
        head_width=head_width,
        upsampling=upsampling,
    )
    bundle = ModelBundle.new(architecture, label_set, seed=seed)
    bundle.save(directory, overwrite=overwrite)
    print(f"{directory}: untrained {arch} on {backbone}, {label_set.num_classes} classes, model_id {bundle.model_id}")
    return DONE


@model_app.command
def show(model: str, *, json: Flag = False) -> int:
    """Show what a model bundle is.

    Parameters
    ----------
    model
        The model bundle: a folder or URI.
    json
        Print it as JSON.
    """
    from pipeline import console
    from pipeline.prepare import load_bundle

    bundle = load_bundle(model)
    description = {
        "model_id": bundle.model_id,
        "architecture": bundle.architecture.model_dump(mode="json"),
        "parameters": sum(tensor.numel() for tensor in bundle.state.values()),
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
        print(f"{name:15}{value:,}" if isinstance(value, int) else f"{name:15}{value}")
    return DONE
