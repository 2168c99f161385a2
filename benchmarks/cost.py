"""What would it cost to label a million, a hundred million, a thousand million images, on three fleets?

Arithmetic alone: nothing is run. The requests are those that tests/e2e/test_requests.py counts at a server, the prices
those of `fcn segment --dry-run` (--prices for others), the speeds the ones below.

    python benchmarks/cost.py
    python benchmarks/cost.py --prices mine.toml
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.plan import LARGEST_SHARD_CPU, LARGEST_SHARD_GPU
from pipeline.segmentation.estimate import count_requests, written_bytes
from pipeline.segmentation.prices import Prices, RunCost, cost_of, read_prices
from pipeline.segmentation.selection import SelectionCounts

IMAGES = (10**6, 10**8, 10**9)
MASK_BYTES = 4000.0
"""Of a palette PNG of 500x375 with a few classes."""


@dataclass(frozen=True)
class Fleet:
    """Machines that each hold one actor, and how many images a second one does."""

    name: str
    machines: int
    cpus: float
    gpus: float
    rate: float
    shard_size: int


FLEETS = (
    Fleet("10 machines of 2 cores", 10, 2, 0, 12.0, LARGEST_SHARD_CPU),
    Fleet("50 machines of 16 cores", 50, 16, 0, 96.0, LARGEST_SHARD_CPU),
    Fleet("8 machines with a GPU", 8, 16, 1, 2000.0, LARGEST_SHARD_GPU),
)


def foresee(fleet: Fleet, images: int, masks: str, prices: Prices) -> tuple[float, RunCost]:
    """Seconds and cost of labelling so many images, none of them done."""
    seconds = images / (fleet.rate * fleet.machines)
    job = SegmentJob.model_validate({"source": "a", "output": "b", "model": "c", "masks": masks})
    counts = SelectionCounts(listed=images, selected=images)
    asked = count_requests(job, counts, math.ceil(images / fleet.shard_size), seconds)
    kinds = {"get": asked.get, "put": asked.put, "list": asked.list}
    size = written_bytes(images, MASK_BYTES, masks)
    return seconds, cost_of(prices, kinds, size, seconds, fleet.machines, fleet.cpus, fleet.gpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prices", type=Path)
    prices = read_prices(parser.parse_args().prices)
    print("| images | fleet | time | machines | requests | requests, packed | all, packed | storage a month |")
    print("|---|---|---|---|---|---|---|---|")
    for images in IMAGES:
        for fleet in FLEETS:
            seconds, plain = foresee(fleet, images, "objects", prices)
            _, packed = foresee(fleet, images, "tar", prices)
            cells = (plain.machines or 0.0, plain.requests, packed.requests, packed.once or 0.0, packed.storage_month)
            row = (f"10^{round(math.log10(images))}", fleet.name, _time(seconds), *map(_money, cells))
            print(f"| {' | '.join(row)} |")


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _money(amount: float) -> str:
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


if __name__ == "__main__":
    main()
