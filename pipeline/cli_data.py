"""`fcn data ...`: look at training data."""

from pathlib import Path, PurePosixPath
from typing import Annotated

from cyclopts import App, Parameter

from pipeline.cli_common import DONE

data_app = App(name="data", help="Photos and their masks: show.")


@data_app.command
def show(
    image: str,
    mask: str,
    *,
    labels: str | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> int:
    """Explain a photo and its mask, say what is wrong with them, and draw them side by side.

    The exit code is 0 as long as both could be read: problems are what it is for.

    Parameters
    ----------
    image
        The photo: a file, or an object by URI.
    mask
        Its mask: a palette PNG of class numbers, or what claims to be one.
    labels
        What the numbers mean: voc, camvid or cityscapes. Default: the one whose colours the mask has, if any.
    output
        The picture to write. Default: the image's name with .pair.png, in this folder.
    """
    from fcn_core.explain import draw_pair, explain_pair, read_picture
    from fcn_core.labels import preset
    from pipeline.errors import InputError, StorageError
    from pipeline.storage import read_object

    label_set = preset(labels) if labels else None
    try:
        photo_file, mask_file = (read_picture(read_object(name), name) for name in (image, mask))
    except StorageError as error:
        raise InputError(str(error)) from error
    pair = explain_pair(photo_file, mask_file, label_set)
    target = output or Path(f"{PurePosixPath(image).stem}.pair.png")
    print(pair.text)
    try:
        draw_pair(pair).save(target, "PNG")
    except OSError as error:
        raise InputError(f"cannot write the picture to {target} ({error}); choose another with --output") from error
    print(f"\npicture in {target}")
    return DONE
