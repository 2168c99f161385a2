"""One image, segmented here and now, as a picture to look at: no Ray, no output to keep."""

from pathlib import Path, PurePosixPath
from typing import Literal

from fcn_core import Predictor, resolve_settings
from fcn_core.render import SheetTile, contact_sheet
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError, InputError, StorageError
from pipeline.models.load import load_bundle
from pipeline.outputs.results import ClassTotal, class_totals
from pipeline.sources.opening import read_image
from pipeline.storage.uri import scheme_of


def write_preview(
    image: str,
    model: str,
    target: Path,
    *,
    registry: str | None = None,
    image_column: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    void_below: float = 0.0,
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[list[ClassTotal], float]:
    """Segment `image` (a path or URI) and write image, overlay and legend to `target` as PNG.

    `model` and `registry` are as `load_bundle` takes them; `image_column`, `void_below`, `flip` and `scales` are
    as `fcn segment` has them.

    Returns what each class covers, and what is void, and the confidence (see `fcn_core.Segmentation`). Raises
    InputError when the image or the model cannot be read.
    """
    bundle = load_bundle(model, registry)
    if scheme_of(image) == "file" and Path(image).is_dir():
        raise InputError(f"{image} is a folder; give one image of it, or all of it to `fcn segment`")
    try:
        data = read_image(image, image_column)
        with CodecPool(1) as codecs:  # it is a stranger's file, and credentials are in this process
            decoded = codecs.decode_now(data)
    except StorageError as error:
        raise InputError(str(error)) from error
    except ImageError as error:
        raise InputError(f"{image}: {error.message}") from error
    settings = resolve_settings(
        device=device, precision=precision, kind=bundle.kind, void_below=void_below, flip=flip, scales=scales
    )
    predictor = Predictor(bundle, settings)
    result = predictor.predict([decoded.pixels])[0]
    sheet = contact_sheet(
        [SheetTile(PurePosixPath(image).name, decoded.pixels, result.mask)],
        predictor.labels,
        columns=1,
        tile_width=640,
    )
    try:
        sheet.save(target, "PNG")
    except OSError as error:
        raise InputError(f"cannot write the picture to {target} ({error}); choose another with --output") from error
    areas = result.areas.tolist()
    void = result.void, int(result.void > 0)
    return class_totals(bundle.labels.names, areas, [int(area > 0) for area in areas], void), result.confidence
