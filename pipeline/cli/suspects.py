"""What `fcn data suspects` prints and writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_core.text.printable import printable
from pipeline.cli.common import DONE
from pipeline.errors import InputError

if TYPE_CHECKING:
    from fcn_core.labels import Mask
    from pipeline.insight.labelling_export import ExportedImage, LabellingFormat
    from pipeline.insight.suspects import Suspects
    from pipeline.jobs.dataset import DatasetOptions
    from pipeline.storage.store import Store

SHOWN_ON_SHEET = 24


def run(
    place: "DatasetOptions",
    model: str,
    splits: Sequence[str],
    top: int,
    registry: str | None,
    sheet: Path | None,
    export: Path | None,
    copy_to: str | None,
    form: "LabellingFormat",
    url_prefix: str | None,
    json: bool,
    on_image: Callable[[int, int], None],
) -> int:
    """Find them, print the list, and write what is asked for."""
    from pipeline.cli import console
    from pipeline.cli.tables import check_table_name, write_table
    from pipeline.insight.suspects import find_suspects
    from pipeline.storage.opening import open_store

    if export is not None:
        check_table_name(export)
    target = None if copy_to is None else open_store(copy_to)
    if target is not None and next(iter(target.list()), None) is not None:
        raise InputError(f"{copy_to} is not empty; give --copy-to a new folder")
    found = find_suspects(place, model, splits=splits, top=top, registry=registry, on_image=on_image)
    screen = console.stderr_console()
    for name, why in found.skipped:
        screen.print(f"left out {printable(name)}: {printable(why)}", markup=False)
    if json:
        console.print_json(found.table().to_pylist())
    else:
        for suspect in found.found:
            print(printable(f"{suspect.rank:>4}  {suspect.score:.4f}  {suspect.pair.name}  {suspect.reason()}"))
    screen.print(f"{len(found.found)} of {found.images} images of {found.dataset}", markup=False)
    if export is not None:
        write_table(export, found.table().to_reader())
        screen.print(f"the list is in {export}", markup=False)
    if sheet is not None:
        drawn = _draw(found, model, registry, sheet)
        screen.print(
            f"the contact sheet is in {sheet}" if drawn else "no contact sheet: there is no suspect to draw",
            markup=False,
        )
    if target is not None:
        _copy(found, target, form, url_prefix)
    return DONE


def _draw(found: "Suspects", model: str, registry: str | None, path: Path) -> bool:
    """Write the contact sheet; False where no suspect can be drawn."""
    from fcn_core.render import contact_sheet
    from pipeline.insight.suspects import sheet_tiles

    tiles = sheet_tiles(found, model, SHOWN_ON_SHEET, registry)
    if not tiles:
        return False
    sheet = contact_sheet(tiles, found.labels, columns=2, tile_width=320, title="Image, annotation, prediction")
    try:
        sheet.save(path, "PNG")
    except OSError as error:
        raise InputError(f"cannot write the contact sheet to {path} ({error}); choose another place") from error
    return True


def _copy(found: "Suspects", target: "Store", form: "LabellingFormat", url_prefix: str | None) -> None:
    from fcn_core.data.mask_coding import read_mask
    from pipeline.cli import console
    from pipeline.insight.labelling_export import ExportedImage, write_project

    of_name = {suspect.pair.name: suspect for suspect in reversed(found.found)}  # in two splits: the worse one

    def read(item: "ExportedImage") -> tuple[bytes, "Mask"]:
        suspect = of_name[item.key]
        pairs = found.splits[suspect.split]
        mask = read_mask(pairs.read(suspect.pair.mask), pairs.labels, pairs.coding, pairs.recode)
        return pairs.read(suspect.pair.image), mask

    items = [
        ExportedImage(suspect.pair.name, "", suspect.pair.mask, suspect.score, suspect.reason(), None)
        for suspect in found.found
        if of_name[suspect.pair.name] is suspect
    ]
    done = write_project(items, read, target, found.labels, form, model_version="annotations", url_prefix=url_prefix)
    screen = console.stderr_console()
    for key, why in done.left_out:
        screen.print(f"left out {printable(key)}: {printable(why)}", markup=False)
    screen.print(f"{done.images} images with their annotations are under {target.uri}; {done.next_step}", markup=False)
