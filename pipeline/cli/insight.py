"""`fcn rank`, `fcn compare` and `fcn query`: what to label next, what changed, and what else the tables can tell."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, PositiveInt

from fcn_core.text.printable import printable
from pipeline.cli.common import DONE, TOO_MANY_ERRORS, Flag
from pipeline.cli.tables import check_table_name, print_rows, write_table
from pipeline.errors import InputError
from pipeline.numbers import counted

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.insight.compare import Comparison
    from pipeline.insight.rank import Ranking
    from pipeline.storage.store import Store


def rank(
    output: str,
    *,
    by: Literal["confidence", "disagreement", "rare"] = "confidence",
    top: PositiveInt = 50,
    per_folder: PositiveInt | None = None,
    diverse: Flag = False,
    without: str | None = None,
    recipe: str | None = None,
    against: str | None = None,
    export: Path | None = None,
    copy_to: str | None = None,
    format: Literal["label-studio", "cvat"] = "label-studio",
    url_prefix: str | None = None,
    json: Flag = False,
) -> int:
    """List the images most worth annotating by hand, and export them to an annotation project.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    by
        confidence: where the model is least sure. disagreement: where two models' masks differ most. rare: images with
        classes that few images have.
    top
        How many.
    per_folder
        At most this many of one folder, so that one camera's night does not fill the list.
    diverse
        Of the first five times as many, those that are unlike each other: by what they look like to the model where
        `fcn segment --features` wrote that, else by the areas of their classes.
    without
        A data set with versions, such as DATASET@latest, whose images are annotated already and not listed.
    recipe
        Whose masks, where there are several (see OUTPUT/masks). Default: the current ones.
    against
        The other recipe, for disagreement. Default: the newest other one.
    export
        Also write the list to this .parquet or .csv file.
    copy_to
        Copy the images, with their masks as proposals, to this folder or URI.
    format
        The labelling tool that --copy-to writes for.
    url_prefix
        Where Label Studio will find the copied folder: a URL. Default: its local storage, or the bucket.
    json
        Print the list as JSON.
    """
    from pipeline.cli import console
    from pipeline.cli.terminal import Screen
    from pipeline.insight.next_images import annotated_keys
    from pipeline.insight.rank import rank as find

    if export is not None:
        check_table_name(export)
    store = _readable(output)
    target = None if copy_to is None else _new_place(copy_to)
    ranking = find(
        store,
        by,
        top=top,
        per_folder=per_folder,
        recipe=recipe,
        against=against,
        diverse=diverse,
        without=annotated_keys(without),
    )
    if export is not None:
        write_table(export, ranking.table().to_reader())
    if json:
        console.print_json([row | {"confidence": _rounded(row["confidence"])} for row in ranking.table().to_pylist()])
    else:
        Screen().print(_ranking_table(ranking))
    screen = console.stderr_console()
    screen.print(printable(_ranking_note(ranking)), markup=False)
    if export is not None:
        screen.print(f"the list is in {export}", markup=False)
    if target is not None:
        _copy(store, ranking, target, format, url_prefix)
    return DONE


def compare(
    output: str,
    run_a: str,
    run_b: str,
    *,
    fail_above: NonNegativeFloat | None = None,
    top: PositiveInt = 12,
    masks: PositiveInt = 2000,
    contact_sheet: Path | None = None,
    seed: int = 0,
    json: Flag = False,
) -> int:
    """Report what changed from RUN_A to RUN_B. Exits 3 if the class areas shifted by more than --fail-above.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    run_a
        The run to compare with: its id, or the beginning of it (see `fcn runs`).
    run_b
        The run in question.
    fail_above
        The largest shift that is still fine: Jensen-Shannon divergence of the class areas in bits, 0 to 1.
    top
        How many of the images that changed most are listed and drawn.
    masks
        How many pairs of masks to look at, where both runs saw the same images.
    contact_sheet
        Draw the images that changed most, both masks side by side, to this PNG.
    seed
        Of the bootstrap; equal seeds give equal numbers.
    json
        Print the comparison as JSON.
    """
    from pipeline.cli import console
    from pipeline.cli.terminal import Screen
    from pipeline.insight.compare import compare as work_out
    from pipeline.insight.compare import draw_changes
    from pipeline.numbers import differing, fixed

    store = _readable(output)
    found = work_out(store, run_a, run_b, top=top, masks=masks, seed=seed)
    failed = fail_above is not None and found.shift.value > fail_above
    if json:
        console.print_json(comparison_json(found) | {"fail_above": fail_above, "failed": failed})
    else:
        _print_comparison(Screen(soft_wrap=True), found)
    screen = console.stderr_console()
    if contact_sheet is not None:
        drawn = draw_changes(store, found)
        if drawn is None:
            screen.print("no contact sheet: no image of both runs changed and can still be read", markup=False)
        else:
            _write(contact_sheet, drawn)
            screen.print(f"the images that changed most are in {contact_sheet}", markup=False)
    if fail_above is not None and failed:
        shifted, limit = differing(found.shift.value, fail_above, fixed)
        screen.print(f"[red]the class areas shifted by {shifted}, more than --fail-above {limit}[/]")
    return TOO_MANY_ERRORS if failed else DONE


def query(
    output: str,
    sql: str | None = None,
    *,
    csv: Annotated[Flag, Parameter(name="--csv")] = False,
    json: Flag = False,
    parquet: Path | None = None,
    views: Flag = False,
) -> int:
    """Query the tables of an output with SQL: current, class_areas, all_variants, results, class_totals, runs, audits.

    `current` has the newest row of each image by the newest variant (a model with its settings), over those before it
    where a run with --where redid only some images; `class_areas` has one row per image and class of these.
    `all_variants` has the newest row of each image by every variant, `results` every row of every run; their column
    `recipe` says which variant. `audits` has what audits found. The SQL is that of DuckDB.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    sql
        The query, such as "SELECT key, confidence FROM current ORDER BY confidence LIMIT 10".
    csv
        Print the rows as CSV.
    json
        Print the rows as JSON, one object per line.
    parquet
        Write the rows to this file.
    views
        Print the views as a script for the duckdb shell (duckdb -init FILE) instead of asking.
    """
    from pipeline.outputs.query import open_tables, run_query, views_script

    if views:
        print(views_script(output), end="")
        return DONE
    if sql is None:
        raise InputError('give a query, such as "SELECT count(*) FROM current", or --views')
    if sum((csv, json, parquet is not None)) > 1:
        raise InputError("--csv, --json and --parquet exclude each other; give one")
    with open_tables(_readable(output)) as connection:
        rows = run_query(connection, sql)
        if parquet is not None:
            check_table_name(parquet, (".parquet",))
            write_table(parquet, rows)
        else:
            print_rows(rows, "csv" if csv else "json" if json else "table")
    return DONE


def _readable(output: str) -> "Store":
    from pipeline.storage.opening import open_store

    store = open_store(output)
    store.check_readable()
    return store


def _new_place(place: str) -> "Store":
    from pipeline.storage.opening import open_store

    target = open_store(place)
    target.check_writable()
    if next(iter(target.list()), None) is not None:
        raise InputError(f"{place} is not empty; give --copy-to a new folder")
    return target


def _copy(
    store: "Store", ranking: "Ranking", target: "Store", form: Literal["label-studio", "cvat"], url_prefix: str | None
) -> None:
    from pipeline.cli import console
    from pipeline.insight.next_images import export_ranking

    done = export_ranking(store, ranking, target, form, url_prefix)
    screen = console.stderr_console()
    for key, why in done.left_out:
        screen.print(f"left out {printable(key)}: {printable(why)}", markup=False)
    screen.print(
        f"{counted(done.images, 'image')} with their masks, under {target.uri}; {done.next_step}", markup=False
    )


def _ranking_table(ranking: "Ranking") -> "Table":
    from rich.table import Table

    from pipeline.cli.console import shown
    from pipeline.numbers import fixed

    table = Table(box=None, pad_edge=False)
    for name, justify in (("rank", "right"), ("priority", "right"), ("image", "left"), ("why", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in ranking.ranked:
        table.add_row(str(row.rank), fixed(row.priority, 3), shown(row.key), shown(row.reason))
    return table


def _ranking_note(ranking: "Ranking") -> str:
    text = f"{len(ranking.ranked)} of {counted(ranking.images, 'image')}, masks of recipe {ranking.record.recipe}"
    if ranking.masks_compared is not None and ranking.masks_compared < ranking.images:
        text += f"; {ranking.masks_compared} pairs of masks were compared"
    if ranking.diversity is not None:
        text += f"; {ranking.diversity}"
    return text


def comparison_json(found: "Comparison") -> dict[str, Any]:
    """A comparison for machines."""
    from dataclasses import asdict

    same = found.same
    return {
        "run_a": found.first.run_id,
        "run_b": found.second.run_id,
        "recipes": [found.first.recipe, found.second.recipe],
        "images": list(found.images),
        "shift": asdict(found.shift),
        "classes": [asdict(change) for change in found.classes],
        "same_images": {
            "images": same.images,
            "equal_masks": same.equal,
            "compared": same.compared,
            "pixel_agreement": same.pixels,
            "mean_iou": same.mean_iou,
            "changed": [
                {"key": each.pair.key, "pixel_agreement": each.pixels, "mean_iou": each.mean_iou}
                | {"mask_a": each.pair.mask_a, "mask_b": each.pair.mask_b}
                for each in same.changed
            ],
        },
    }


def _print_comparison(screen: Any, found: "Comparison") -> None:
    from rich.table import Table

    from pipeline.cli.console import shown
    from pipeline.numbers import fixed, percent, score

    for name, record, images in (("A", found.first, found.images[0]), ("B", found.second, found.images[1])):
        text = f"{name} {record.run_id}: {counted(images, 'image')}, recipe {record.recipe}"
        screen.print(printable(text), markup=False)
    shift = found.shift
    screen.print(
        f"shift of the class areas [bold]{fixed(shift.value)}[/] (95 % interval {fixed(shift.low)} to "
        f"{fixed(shift.high)}; chance alone would show about {fixed(shift.chance)})"
    )
    table = Table(box=None, pad_edge=False)
    for name, justify in (("class", "left"), ("mean share in A", "right"), ("in B", "right"), ("change", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for change in sorted(found.classes, key=lambda change: -abs(change.mean_share_after - change.mean_share_before)):
        name = shown(change.class_name)
        before, after = change.mean_share_before, change.mean_share_after
        table.add_row(name, percent(before, 2), percent(after, 2), f"{fixed(100 * (after - before), 2, '+')} %")
    screen.print(table)
    same = found.same
    if not same.images:
        screen.print("no image is in both runs with the same bytes, so no masks were compared")
        return
    text = f"{same.images} images are in both, {same.equal} with the very same mask"
    if same.pixels is not None:
        text += f"; pixel agreement {percent(same.pixels, 2)}, mean IoU {score(same.mean_iou)} (over {same.compared})"
    screen.print(text, markup=False)
    for each in same.changed:
        key = printable(each.pair.key)
        screen.print(
            f"  {percent(1 - each.pixels):>8} of the pixels changed, mean IoU {score(each.mean_iou, 2)}: {key}",
            markup=False,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write the picture to {path} ({error}); choose another place") from error
