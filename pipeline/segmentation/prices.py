"""What requests, storage and machines cost: a small TOML table that people edit. `prices.toml` beside this is the
example that comes with the program."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError

from pipeline.actors.cluster import actors_on
from pipeline.errors import InputError

PRICED_BY_THE = 1000  # requests
GB = 1e9


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestPrices(_Table):
    """For 1,000 requests of a kind."""

    get: NonNegativeFloat
    put: NonNegativeFloat
    list: NonNegativeFloat


class StoragePrices(_Table):
    """For what is kept."""

    gb_month: NonNegativeFloat


class MachinePrice(_Table):
    """One kind of machine, by the hour."""

    kind: str
    cpus: PositiveFloat
    gpus: NonNegativeFloat = 0
    hour: NonNegativeFloat

    def actors(self, cpus: float, gpus: float) -> int:
        """How many actors of such a size fit."""
        return actors_on(self.cpus, self.gpus, cpus, gpus)


class Prices(_Table):
    """A price table."""

    dated: str
    currency: str
    requests: RequestPrices
    storage: StoragePrices
    machines: tuple[MachinePrice, ...] = Field(min_length=1)


@dataclass(frozen=True)
class RunCost:
    """What a job costs, in the table's currency. `machines` is None where its time is not known or nothing fits."""

    currency: str
    dated: str
    requests: float
    storage_month: float
    machines: float | None
    machine_kind: str | None
    machine_count: int | None

    @property
    def once(self) -> float | None:
        """Requests and machines: what is paid once, not every month."""
        return None if self.machines is None else self.requests + self.machines


def read_prices(path: Path | None = None) -> Prices:
    """The table in the file `path`; the example that comes with the program when None.

    Raises InputError that names the file, and what in it cannot be.
    """
    name = str(path) if path else "the program's prices.toml"
    try:
        text = path.read_text() if path else (resources.files(__package__) / "prices.toml").read_text()
        return Prices.model_validate(tomllib.loads(text))
    except OSError as error:
        raise InputError(f"--prices {name} cannot be read: {error.strerror}") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        if isinstance(error, ValidationError):
            raise InputError(f"--prices {name}: {_problems(error)}; see prices in docs/performance.md") from error
        raise InputError(f"--prices {name} is not TOML: {error}") from error


def cost_of(
    prices: Prices, requests: Mapping[str, int], written_bytes: int, seconds: float | None, actors: int,
    cpus: float, gpus: float,
) -> RunCost:  # fmt: skip
    """What `requests` by kind (get, put, list), `written_bytes` a month, and `seconds` of so many actors cost.

    An actor takes `cpus` and `gpus` of a machine; machines are paid whole. Of the kinds, the cheapest is taken.
    """
    each: dict[str, Any] = prices.requests.model_dump()
    asked = sum(count * each[kind] for kind, count in requests.items()) / PRICED_BY_THE
    month = written_bytes / GB * prices.storage.gb_month
    fitting = [(machine, math.ceil(actors / fit)) for machine in prices.machines if (fit := machine.actors(cpus, gpus))]
    if seconds is None or not fitting:
        return RunCost(prices.currency, prices.dated, asked, month, None, None, None)
    machine, count = min(fitting, key=lambda item: item[0].hour * item[1])
    paid = seconds / 3600 * machine.hour * count
    return RunCost(prices.currency, prices.dated, asked, month, paid, machine.kind, count)


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )
