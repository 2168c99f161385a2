"""`fcn data ...`: look at training data, and make it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline.cli.common import BAD_INPUT, DONE, Flag
from pipeline.jobs.dataset import DatasetOptions, ReadingOptions
from pipeline.jobs.importing import AddOptions, ImportOptions

if TYPE_CHECKING:
    from pipeline.data.versioned.report import AddReport

data_app = App(name="data", help="Images and their masks: import, add, log, diff, check, suspects, show.")


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
        A folder in PASCAL VOC's layout, or a manifest (.parquet, .csv, .tsv); path or URI.
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


@data_app.command(name="import")
def import_(
    source: str,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    options: Annotated[ImportOptions | None, Parameter(name="*", negative="")] = None,
    json: Flag = False,
) -> int:
    """Make a data set from annotations of CVAT, Label Studio, labelme, COCO and others. docs/annotations.md has them.

    It is version 1 of the data set: train on DATASET@1 or DATASET@latest. The exit code is 2 when nothing is usable.

    Parameters
    ----------
    source
        A folder, bucket, .zip or .json that a labelling tool exported.
    output
        The data set: an empty or new folder, path or URI.
    json
        Print the report as JSON.
    """
    from pipeline.data.versioned.adding import import_dataset

    with _counting() as on_image:
        report = import_dataset(source, output, options or ImportOptions(), on_image)
    return _show_addition(report, json)


@data_app.command
def add(
    dataset: str,
    source: str,
    *,
    options: Annotated[AddOptions | None, Parameter(name="*", negative="")] = None,
    json: Flag = False,
) -> int:
    """Make the next version of a data set: corrections replace masks by image, other images are new.

    An image never changes its split. The exit code is 2 when nothing could be used.

    Parameters
    ----------
    dataset
        The data set, without a version.
    source
        A folder, bucket, .zip or .json that a labelling tool exported.
    json
        Print the report as JSON.
    """
    from pipeline.data.versioned.adding import add_to_dataset

    with _counting() as on_image:
        report = add_to_dataset(dataset, source, options or AddOptions(), on_image)
    return _show_addition(report, json)


def _show_addition(report: "AddReport", json: bool) -> int:
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.data.versioned.report import describe

    if json:
        console.print_json(report.model_dump(mode="json"))
    else:
        for line in describe(report):
            print(printable(line))
    return DONE if report.usable else BAD_INPUT


@data_app.command
def log(dataset: str, *, json: Flag = False) -> int:
    """List the versions of a data set, newest first: when, from what, how many images, what changed.

    Parameters
    ----------
    dataset
        The data set, without a version.
    json
        Print them as JSON.
    """
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.data.versioned.changes import history

    entries = history(dataset)
    if json:
        console.print_json([entry.model_dump(mode="json") for entry in entries])
    else:
        for entry in entries:
            print(printable(entry.line()))
    return DONE


@data_app.command
def diff(before: str, after: str, *, names: Annotated[int, Parameter(validator=Number(gte=0))] = 20) -> int:
    """Say what a version of a data set has otherwise than another: images added, masks corrected, splits.

    Parameters
    ----------
    before
        A version, such as DATASET@1.
    after
        Another one, such as DATASET@latest.
    names
        How many images are named of each kind.
    """
    from fcn_core.text.printable import printable
    from pipeline.data.versioned.changes import compare_versions, describe_diff
    from pipeline.data.versioned.versions import open_version

    for line in describe_diff(compare_versions(open_version(before)[1], open_version(after)[1]), names):
        print(printable(line))
    return DONE


@data_app.command
def suspects(
    dataset: str,
    model: str,
    *,
    options: Annotated[ReadingOptions | None, Parameter(name="*", negative="")] = None,
    split: Annotated[tuple[str, ...], Parameter(negative="")] = ("val",),
    top: Annotated[int, Parameter(validator=Number(gte=1))] = 50,
    registry: str | None = None,
    contact_sheet: Path | None = None,
    export: Path | None = None,
    copy_to: str | None = None,
    format: Literal["label-studio", "cvat"] = "label-studio",
    url_prefix: str | None = None,
    json: Flag = False,
) -> int:
    """Find annotations that are probably wrong: where a model that was not trained on them sees something else.

    A model agrees with what it has learnt, errors included: score the split that it has not seen.

    Parameters
    ----------
    dataset
        Labelled images: a folder in PASCAL VOC's layout, a manifest, or DATASET@latest; path or URI.
    model
        The model: the folder or URI of a bundle, or registry:NAME@champion.
    split
        Look at this split; may be given several times.
    top
        How many images to list.
    registry
        Where registry:NAME is looked up. Default: FCN_REGISTRY.
    contact_sheet
        Draw the first 24 on a contact sheet: image, annotation and prediction.
    export
        Also write the list to this .parquet or .csv file.
    copy_to
        Copy the images, with their annotations to be corrected, to this folder or URI.
    format
        The labelling tool that --copy-to writes for.
    url_prefix
        Where Label Studio will find the folder images/, if not where --copy-to says.
    json
        Print the list as JSON.
    """
    from pipeline.cli.suspects import run

    place = DatasetOptions(dataset=dataset, **(options or ReadingOptions()).model_dump())
    with _progress() as on_image:
        return run(
            place, model, split, top, registry, contact_sheet, export, copy_to, format, url_prefix, json, on_image
        )


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """A count on standard error where that is a terminal, else nothing."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    from pipeline.cli import console

    screen = console.stderr_console()
    columns = (SpinnerColumn(), TextColumn("{task.completed} images"))
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done: bar.update(task, completed=done)


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
        What the numbers mean: voc, camvid, cityscapes or a .json file. Default: the one whose colours the mask has, if
        any.
    output
        The picture to write. Default: the image's name with .pair.png, in this folder.
    """
    from fcn_core.data.explain import draw_pair, explain_pair
    from fcn_core.data.picture_files import read_mask_file, read_photo
    from fcn_core.labels import find_labels
    from fcn_core.text.printable import printable_lines
    from pipeline.codec.processes import CodecPool
    from pipeline.errors import InputError, StorageError
    from pipeline.storage.opening import read_object

    label_set = find_labels(labels) if labels else None
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
