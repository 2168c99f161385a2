"""`fcn model quantize`: a model in 8-bit integers."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, Flag


def quantize(
    model: str,
    *,
    calibrate: str,
    directory: Annotated[Path, Parameter(name=["--output", "-o"])],
    images: int = 48,
    follow_links: Flag = False,
    registry: str | None = None,
    overwrite: Flag = False,
) -> int:
    """Make an int8 model: about twice as fast on a CPU, at a few pixels in a thousand.

    Nothing is trained: a few dozen of your own images show how values are to be rounded. Every fourth is kept out of
    that and compared with the float model; the share of equal pixels is printed and noted in the new bundle, which has
    a model_id of its own. Of an imported ONNX graph another ONNX graph is made. It needs the
    extra packages of fcn-pipeline[quantize].

    Parameters
    ----------
    model
        The folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION.
    calibrate
        The folder or URI of images such as the model will label.
    directory
        The folder to write.
    images
        How many images to take, at least 4; the same ones each time.
    follow_links
        Also take images behind links that lead out of a local folder.
    registry
        The folder or URI where registry:... models are. Default: FCN_REGISTRY.
    overwrite
        Replace another model in that folder.
    """
    from fcn_core.inference.quantize import quantize as quantize_bundle
    from fcn_core.inference.quantize import require_packages
    from pipeline.cli.terminal import unguarded
    from pipeline.models.load import load_bundle
    from pipeline.numbers import percent
    from pipeline.segmentation.calibration import sample_images

    require_packages()
    bundle = load_bundle(model, registry)
    with contextlib.redirect_stdout(unguarded(sys.stderr)):  # where a progress bar belongs
        made, agreement = quantize_bundle(bundle, sample_images(calibrate, images, follow_links=follow_links))
    made.save(directory, overwrite=overwrite)
    print(f"{directory}: int8 of model {bundle.model_id}, model_id {made.model_id}")
    print(
        f"{percent(agreement.equal_pixels, 2)} of the pixels of {agreement.images} images that took no part in "
        "calibration are as in float32"
    )
    return DONE
