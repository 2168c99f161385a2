"""`fcn audit ...`: what the classes really cover, from a random sample annotated by hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number

from fcn_core.text.printable import printable
from pipeline.cli.common import DONE, TOO_MANY_ERRORS, Flag, Share

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.audit.plan import Plan
    from pipeline.audit.results import ClassEstimate, Estimate
    from pipeline.storage.store import Store

audit_app = App(name="audit", help="Areas and accuracies with error bars: plan, estimate, extend.")

SampleSize = Annotated[int, Parameter(name=["--images", "-n"], validator=Number(gte=2))]


@audit_app.command
def plan(
    output: str,
    *,
    audit: Annotated[str | None, Parameter(name=["--audit", "-o"])] = None,
    n: SampleSize = 300,
    recipe: str | None = None,
    where: str | None = None,
    by: str | None = None,
    cluster: str | None = None,
    per_cluster: PositiveInt = 5,
    seed: int = 0,
    tasks: Literal["label-studio", "cvat", "none"] = "label-studio",
    prefill: Flag = False,
    url_prefix: str | None = None,
    dry_run: Flag = False,
    json: Flag = False,
) -> int:
    """Draw a random sample of an output's images, and write them as tasks for a labelling tool.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    audit
        A new folder or URI for the audit.
    n
        How many images to annotate.
    recipe
        Whose masks to audit, where there are several (see OUTPUT/masks). Default: those of the newest run.
    where
        Audit only images of which this is true: SQL on the columns of `fcn query`, such as "key LIKE 'cam1/%'".
    by
        Also estimate each part by itself: folder, top-folder, or one of the columns width, height, orientation, run_id.
    cluster
        Draw whole folders (or top-folders), with some images of each, instead of single images.
    per_cluster
        With --cluster: how many images of each folder.
    seed
        Of the draw; equal seeds draw equal samples.
    tasks
        The labelling tool that tasks are written for; none: only list the images.
    prefill
        Give the model's masks as proposals. Quicker to annotate, and biased towards the model.
    url_prefix
        Where Label Studio will find the copied images: a URL. Default: its local storage, or the bucket.
    dry_run
        Say what would be drawn, and how wide intervals to expect; write nothing.
    json
        Print the plan as JSON.
    """
    from pipeline.audit.plan import PlanOptions, plan_audit
    from pipeline.cli import console
    from pipeline.errors import InputError

    if audit is None and not dry_run:
        raise InputError("say where the audit goes with -o, or give --dry-run")
    options = PlanOptions(
        n=n, recipe=recipe, where=where, by=by, cluster=cluster, per_cluster=per_cluster, seed=seed, tasks=tasks,
        prefill=prefill, url_prefix=url_prefix,
    )  # fmt: skip
    store = _readable(output)
    target = None
    if audit is not None and not dry_run:
        from pipeline.storage.opening import open_store

        target = open_store(audit)
        target.check_writable()
    with console.stderr_console().status("reading the tables") as status:
        drawn = plan_audit(store, target, options, status.update)
    _show_plan(drawn, target, json=json)
    return DONE


@audit_app.command
def extend(audit: str, *, n: SampleSize = 100, seed: int = 0, dry_run: Flag = False, json: Flag = False) -> int:
    """Draw the next sample, of what was added to the output since the last one. What is annotated stays.

    Parameters
    ----------
    audit
        The folder or URI of `fcn audit plan`.
    n
        How many more images to annotate.
    seed
        Of the draw; equal seeds draw equal samples.
    dry_run
        Say what would be drawn; write nothing.
    json
        Print the plan as JSON.
    """
    from pipeline.audit.plan import extend_audit
    from pipeline.cli import console

    store = _readable(audit)
    with console.stderr_console().status("reading the tables") as status:
        drawn = extend_audit(store, n, seed, dry_run=dry_run, phase=status.update)
    _show_plan(drawn, None if dry_run else store, json=json)
    return DONE


@audit_app.command
def estimate(
    audit: str,
    annotations: str,
    *,
    estimator: Literal["regression", "difference", "sample"] = "regression",
    cluster: str | None = None,
    most_void: Share = 0.5,
    trained_on: str | None = None,
    fail_bias: Share | None = None,
    fail_width: Share | None = None,
    seed: int = 0,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"])] = None,
    json: Flag = False,
) -> int:
    """Say what each class really covers and how accurate the masks are, with 95 % intervals.

    Writes the estimate and a page under AUDIT, and a table beside the results for `fcn query`. Exits 3 when --fail-bias
    or --fail-width says so.

    Parameters
    ----------
    audit
        The folder or URI of `fcn audit plan`.
    annotations
        What the labelling tool exported: a folder, archive or URI. PNGs are called as the tasks or the images.
    estimator
        regression: the model's areas, corrected as far as they help. difference: corrected fully, so that shares add up
        to 1. sample: annotations alone.
    cluster
        Let intervals follow from folders (folder, top-folder) of which those drawn stand for others like them.
    most_void
        Images whose annotation is void for more than this share of the pixels are not used.
    trained_on
        Refuse when images of the sample are in this data set, which the model was trained on.
    fail_bias
        Exit 3 when an interval excludes the model's share by more than this.
    fail_width
        Exit 3 when an interval is wider than this.
    seed
        Of the bootstrap; equal seeds give equal numbers.
    file
        Also write the page to this file.
    json
        Print the estimate as JSON.
    """
    from pipeline.audit.files import PAGE
    from pipeline.audit.gate import failures
    from pipeline.audit.job import AuditJob, run_audit
    from pipeline.cli import console
    from pipeline.errors import InputError

    store = _readable(audit)
    screen = console.stderr_console()
    job = AuditJob(
        audit=audit, annotations=annotations, estimator=estimator, cluster=cluster, most_void=most_void,
        trained_on=trained_on, fail_bias=fail_bias, fail_width=fail_width, seed=seed,
    )  # fmt: skip
    with screen.status("reading the plan") as status:
        found = run_audit(job, status.update)
    if file is not None:
        try:
            file.write_bytes(store.get(PAGE))
        except OSError as error:
            raise InputError(f"cannot write the page to {file} ({error}); choose another with --file") from error
    failed = failures(found, job.gate)
    if json:
        console.print_json(found.model_dump(mode="json") | {"classes": _named(found), "failed": failed})
    else:
        _show_estimate(found)
    for each in found.not_used[:SHOWN]:
        screen.print(f"not used: {printable(each.key)}: {printable(each.reason)}", markup=False)
    if len(found.not_used) > SHOWN:
        screen.print(f"and {len(found.not_used) - SHOWN} more; {store.uri}/estimate.json names them", markup=False)
    if found.not_sampled:
        shown = ", ".join(printable(name) for name in found.not_sampled[:3])
        screen.print(
            f"left out, as no image that was drawn is called so: {len(found.not_sampled)} masks ({shown})", markup=False
        )
    for note in found.notes:
        screen.print(f"note: {printable(note)}", markup=False)
    for reason in failed:
        screen.print(f"failed: {printable(reason)}", markup=False)
    return TOO_MANY_ERRORS if failed else DONE


SHOWN = 20
"""Images that are named on the terminal."""


def _readable(place: str) -> "Store":
    from pipeline.storage.opening import open_store

    store = open_store(place)
    store.check_readable()
    return store


def _named(found: "Estimate") -> list[dict[str, Any]]:
    """The classes with `class` for the name."""
    return [{"class": each.name, **each.model_dump(mode="json", exclude={"name"})} for each in found.classes]


def _show_plan(drawn: "Plan", target: "Store | None", *, json: bool) -> None:
    from rich.table import Table

    from pipeline.cli import console
    from pipeline.cli.console import shown
    from pipeline.numbers import count, counted, percent

    record, wave = drawn.record, drawn.wave
    if json:
        console.print_json(
            {
                "audit": None if target is None else target.uri,
                "recipe": record.recipe,
                "images": drawn.images,
                "drawn": len(drawn.sample),
                "seed": wave.seed,
                "strata": [
                    stratum.model_dump(include={"number", "description", "images", "units", "drawn"})
                    for stratum in wave.strata
                ],
                "expected_half_width": dict(zip(record.labels.names, _expected(drawn), strict=True)),
                "left_out": [{"key": key, "reason": reason} for key, reason in sorted(drawn.left_out.items())],
            }
        )
    else:
        units = "folders" if record.cluster else "images"
        strata = Table(box=None, pad_edge=False)
        strata.add_column("stratum", overflow="fold")
        for name in ("images", units, "drawn") if record.cluster else ("images", "drawn"):
            strata.add_column(name, justify="right")
        for stratum in wave.strata:
            if stratum.images:
                numbers = (
                    [stratum.images, stratum.units, stratum.drawn]
                    if record.cluster
                    else [stratum.images, stratum.drawn]
                )
                strata.add_row(stratum.description, *map(count, numbers))
        classes = Table(box=None, pad_edge=False)
        for name in ("class", "model's share", "half width to expect"):
            classes.add_column(name, justify="left" if name == "class" else "right")
        pixels = sum(stratum.pixels for stratum in wave.strata)
        for index, name in enumerate(record.labels.names):
            share = sum(stratum.model[index] for stratum in wave.strata) / max(1, pixels)
            expected = _expected(drawn)[index]
            width = "not told by the model" if expected is None else "± " + percent(expected, 2)
            classes.add_row(shown(name), percent(share, 2), width)
        screen = _screen()
        screen.print(strata)
        screen.print()
        screen.print(classes)
    lines = [f"{counted(len(drawn.sample), 'image')} of {count(drawn.images)}, masks of recipe {record.recipe}"]
    lines += [f"left out {key}: {reason}" for key, reason in sorted(drawn.left_out.items())[:SHOWN]]
    if target is None:
        lines.append("widths are a guess from the model's confidence; nothing was written")
    else:
        lines.append(f"the audit is under {target.uri}; tasks are under tasks/{wave.number:04d}: {drawn.next_step}")
        lines.append(f"then `fcn audit estimate {target.uri} ANNOTATIONS`")
    out = console.stderr_console()
    for line in lines:
        out.print(printable(line), markup=False)


def _expected(drawn: "Plan") -> list[float | None]:
    """Half widths to expect, by class; None for one that the model never predicts: its scores say nothing of it."""
    totals = [sum(each) for each in zip(*(stratum.model for stratum in drawn.wave.strata), strict=True)]
    widths = drawn.wave.expected_half_width
    return [width if total else None for width, total in zip(widths, totals, strict=True)]


def _show_estimate(found: "Estimate") -> None:
    from rich.table import Table

    from pipeline.cli.console import shown
    from pipeline.numbers import count

    table = Table(box=None, pad_edge=False)
    for name in ("class", "share", "95 % interval", "model said", "IoU", "to halve it"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for each in sorted(found.classes, key=lambda each: -each.share):
        table.add_row(shown(each.name), *_cells(each))
    screen = _screen()
    screen.print(table)
    for name, ratio in (("pixel accuracy", found.accuracy), ("mean IoU", found.mean_iou)):
        screen.print(f"{name} {_score(ratio)}", markup=False)
    for domain in found.domains:
        name = printable(domain.name) or "(no folder)"
        screen.print(f"\n{name}: {count(domain.images)} images, {domain.annotated} annotated", markup=False)
        part = Table(box=None, pad_edge=False, show_header=False)
        for each in sorted(domain.classes, key=lambda each: -each.share):
            part.add_row(shown(each.name), *_cells(each)[:3])
        screen.print(part if domain.classes else "too few annotated images for an interval")


def _screen() -> "Console":
    """Standard output; wider than a terminal where it is read by another program."""
    from pipeline.cli.terminal import Screen

    screen = Screen()
    return screen if screen.is_terminal else Screen(width=4000)


def _cells(each: "ClassEstimate") -> list[str]:
    from pipeline.numbers import count, percent

    more = "" if each.more_images is None else f"+{count(each.more_images)} images"
    return [
        percent(each.share, 2),
        f"{percent(each.low, 2)} to {percent(each.high, 2)}",
        percent(each.model_share, 2),
        _score(each.iou) if each.iou is not None else "",
        more,
    ]


def _score(ratio: Any) -> str:
    from pipeline.numbers import score

    if ratio.value is None:
        return "-"
    return f"{score(ratio.value)} ({score(ratio.low)} to {score(ratio.high)})"
