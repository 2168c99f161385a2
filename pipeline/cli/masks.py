"""`fcn masks`: one mask of an output, or all of them in another format."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeFloat, NonNegativeInt

from pipeline.cli.common import DONE
from pipeline.exports.formats import ExportFormatName

masks_app = App(name="masks", help="Masks of an output: get one, or export them in many formats.")


@masks_app.command
def export(
    output: str,
    destination: str,
    *,
    format: ExportFormatName = "png",
    where: str | None = None,
    recipe: str | None = None,
    tolerance: NonNegativeFloat = 0.0,
    min_area: NonNegativeInt = 0,
) -> int:
    """Export masks to DESTINATION, as files under plain names or as COCO, YOLO or GeoJSON.

    What is there already is not written again, so the same command finishes a stopped export and brings one up to date.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    destination
        A folder or URI, for one export. The mask of photos/a.jpg becomes DESTINATION/photos/a.png.
    format
        png: palette PNGs of class indices. color: PNGs of colours. overlay: JPEGs of images with their masks over them.
        coco-rle, coco-panoptic, polygons: COCO's annotations.json. yolo: a text file per image, and data.yaml. geojson:
        a file per image, in pixels.
    where
        Only images for whose current row this SQL condition is true, such as "confidence < 0.8". Needs DuckDB.
    recipe
        Which model's masks, where there are several (see OUTPUT/masks). Default: those of the newest run.
    tolerance
        Simplify outlines: by at most so many pixels. 0 is exact.
    min_area
        Leave out regions of fewer pixels: connected parts; with coco-rle and coco-panoptic all of a class in an image.
    """
    from fcn_core.text.printable import printable
    from pipeline.exports.formats.base import ExportOptions
    from pipeline.exports.job import export_masks
    from pipeline.numbers import counted

    options = ExportOptions(tolerance, min_area)
    report = export_masks(output, destination, recipe, format=format, where=where, options=options)
    kept = f", {report.kept:,} of them since before" if report.kept else ""
    masks = counted(report.images - report.without_image, "mask")
    print(printable(f"{masks} of recipe {' over '.join(report.variants)}, under {destination}{kept}"))
    if report.without_image:
        key, why = report.missing[0]
        left_out = counted(report.without_image, "image")
        print(printable(f"{left_out} cannot be read as segmented and left out, such as {key}: {why}"), file=sys.stderr)
    return DONE


@masks_app.command
def get(
    output: str,
    key: str,
    /,
    *,
    file: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    recipe: str | None = None,
) -> int:
    """Fetch the mask of one image, wherever it lies: an object of its own, or a part of a shard's tar.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    key
        The image's key, as `key` in results.
    file
        The file to write. Default: the last part of the key with .png, in this folder. `-` is standard output.
    recipe
        Which model's mask, where there are several (see OUTPUT/masks). Default: that of the newest run.
    """
    from fcn_core.text.printable import printable
    from pipeline.errors import InputError
    from pipeline.outputs.masks import find_mask
    from pipeline.storage.opening import open_store

    store = open_store(output)
    store.check_readable()
    found = find_mask(store, key, recipe)
    target = file or Path(Path(key).stem + ".png")
    if str(target) == "-":
        sys.stdout.buffer.write(found.png)
        return DONE
    try:
        target.write_bytes(found.png)
    except OSError as error:
        raise InputError(f"cannot write the mask to {target} ({error}); choose another place with -o") from error
    print(f"{printable(found.mask_key)} is in {target}")
    return DONE
