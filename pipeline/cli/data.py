"""`fcn data ...`: look at training data."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline.cli.common import BAD_INPUT, DONE, Flag
from pipeline.jobs.dataset import DatasetOptions, ReadingOptions

data_app = App(name="data", help="Photos and their masks: check, show.")


@data_app.command
def check(
    dataset: str,
    *,
    options: Annotated[ReadingOptions | None, Parameter(name="*", negative="")] = None,
    split: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    examples: Annotated[int, Parameter(validator=Number(gte=1))] = 10,
    json: Flag = False,
) -> int:
    """Read a whole data set and say what is wrong with it, file by file. docs/data.md has the layouts.

    The exit code is 2 when there are problems; warnings alone leave it 0.

    Parameters
    ----------
    dataset
        A folder in PASCAL VOC's layout, or a .parquet or .csv manifest; path or URI.
    split
        Check this split; may be given several times. Default: all.
    examples
        How many findings of a kind are spelled out for each split.
    json
        Print the report as JSON.
    """
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.data.check import check_dataset
    from pipeline.data.report import describe

    place = DatasetOptions(dataset=dataset, **(options or ReadingOptions()).model_dump())
    with _progress() as on_image:
        report = check_dataset(place, split or None, examples=examples, on_image=on_image)
    if json:
        console.print_json({"ok": report.ok, **report.model_dump(mode="json")})
    else:
        for line in describe(report):
            print(printable(line))
    return DONE if report.ok else BAD_INPUT


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal, else nothing."""
    from rich.progress import Progress

    from pipeline.cli import console

    screen = console.stderr_console()
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
    from fcn_core.data.explain import draw_pair, explain_pair
    from fcn_core.data.picture_files import read_mask_file, read_photo
    from fcn_core.labels import preset
    from fcn_core.text.printable import printable_lines
    from pipeline.codec.processes import CodecPool
    from pipeline.errors import InputError, StorageError
    from pipeline.storage.opening import read_object

    label_set = preset(labels) if labels else None
    try:
        photo = read_object(image)
        with CodecPool(1) as codecs:  # it is a stranger's file, and credentials are in this process
            photo_file = read_photo(photo, image, codecs.decode_for_core)
        mask_file = read_mask_file(read_object(mask), mask)
    except StorageError as error:
        raise InputError(str(error)) from error
    pair = explain_pair(photo_file, mask_file, label_set)
    target = output or Path(f"{PurePosixPath(image).stem}.pair.png")
    print(printable_lines(pair.text))
    try:
        draw_pair(pair).save(target, "PNG")
    except OSError as error:
        raise InputError(f"cannot write the picture to {target} ({error}); choose another with --output") from error
    print(f"\npicture in {target}")
    return DONE
