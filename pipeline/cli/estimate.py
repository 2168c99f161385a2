"""What `fcn segment --dry-run` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.common import DONE

if TYPE_CHECKING:
    from pipeline.jobs.segment import SegmentJob
    from pipeline.segmentation.estimate import Estimate


def estimate(job: "SegmentJob", prices: Path | None, *, json: bool) -> int:
    """Foresee `job` and print it: lines for a person, or JSON."""
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.segmentation import estimate as estimates
    from pipeline.segmentation.prices import read_prices

    table = read_prices(prices)
    screen = console.stderr_console()
    found = estimates.estimate(job, table, lambda name: screen.print(f"{name} ...", markup=False))
    if json:
        console.print_json(estimate_json(found))
        return DONE
    for name, value in _lines(found):
        print(f"{name:<14} {printable(value)}")
    for note in found.notes:
        print(f"note: {printable(note)}")
    origin = f"from {prices}" if prices else "examples that come with the program"
    print(f"note: prices of {table.dated}, {origin}; nothing was written")
    return DONE


def estimate_json(found: "Estimate") -> dict[str, object]:
    """An estimate as JSON's values."""
    from dataclasses import asdict

    return {**asdict(found), "images": found.images, "bytes": found.selection.selected_bytes}


def _lines(found: "Estimate") -> list[tuple[str, str]]:
    from pipeline.numbers import duration, fixed

    chosen, cost = found.selection, found.cost
    lines = [
        ("images", f"{found.images:,} of {chosen.listed:,} listed; {chosen.done:,} are done"),
        ("bytes", f"{chosen.selected_bytes:,} to read"),
        ("shards", f"{found.shards:,} of {found.shard_size:,} images, masks as {found.masks}"),
        ("requests", f"{found.requests.get:,} GET, {found.requests.put:,} PUT, {found.requests.list:,} LIST"),
    ]
    if found.written_bytes is not None:
        lines.append(("storage", f"about {found.written_bytes:,} bytes written"))
    if found.seconds is not None and found.images_per_second:
        speed = f"{found.images_per_second:,.1f} images/s on {found.actors} actor(s)"
        lines.append(("time", f"about {duration(found.seconds)} at {speed}"))
    if found.probe is not None:
        probe = found.probe
        stages = ", ".join(
            f"{name} {fixed(1000 * seconds, 1)}"
            for name, seconds in (
                ("fetch", probe.fetch), ("decode", probe.decode), ("predict", probe.predict), ("encode", probe.encode)
            )
        )  # fmt: skip
        failed = f"; {probe.failed} could not be read" if probe.failed else ""
        lines.append(("probe", f"{probe.images} images here, ms each: {stages}{failed}"))
    lines.append(("requests cost", f"{amount(cost.requests)} {cost.currency}"))
    if cost.machines is not None:
        kind = f"{cost.machine_count} x {cost.machine_kind}"
        lines.append(("machines cost", f"{amount(cost.machines)} {cost.currency} ({kind})"))
    if found.written_bytes is not None:
        lines.append(("storage costs", f"{amount(cost.storage_month)} {cost.currency} a month"))
    return lines


def amount(value: float) -> str:
    """Money: "1,234.50"; what is less than a cent is not nothing."""
    from pipeline.numbers import fixed

    return f"{value:,.2f}" if value >= 0.01 else fixed(value, 2)
