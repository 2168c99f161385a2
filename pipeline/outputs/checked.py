"""Committed results, held against their run's record and plan: the reading that `verify` reports on and `gc` relies on.

Whatever is damaged is reported in words, file by file, and the reading goes on. Files of 0.1 carry no checksum; there
the plan says which images the rows must be of, and a row's identity says what its mask is called.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.errors import FcnError
from pipeline.errors import AccessDenied, PipelineError, StorageUnavailable
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats import format_of
from pipeline.outputs.plan import PlanManifest, read_manifest, read_shards
from pipeline.outputs.results import READS_AT_ONCE, committed_shards, read_table, shard_key
from pipeline.outputs.runs import RunRecord
from pipeline.outputs.shard import Shard
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store


@dataclass(frozen=True)
class OutputFinding:
    """One thing that differs from what it should be: which file, and how."""

    file: str
    problem: str


Report = Callable[[OutputFinding], None]


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """One results file of which all rows are what the run planned."""

    number: int
    file: str
    rows: pa.Table


def trouble(error: Exception) -> str:
    """What is wrong with a file that could not be understood. Raises what says nothing about the file itself."""
    if isinstance(error, AccessDenied | StorageUnavailable):
        raise error
    if isinstance(error, PipelineError | FcnError):
        return str(error)
    detail = " ".join(str(error).split())
    return f"makes no sense ({type(error).__name__}{': ' if detail else ''}{detail})"


CHECKED_COLUMNS = ("key", "etag", "status", "mask_key", "model_id", "params_id")
"""What the check itself needs of the results."""


def checked_results(
    output: Store, record: RunRecord, report: Report, columns: Sequence[str] | None = None
) -> Iterator[CheckedShard]:
    """The committed shards of a run that are what was planned, in order; of all columns, or CHECKED_COLUMNS and more.

    All that is not is reported.
    """
    run_id = record.run_id
    if record.recipe != Recipe(record.model_id, record.params_id).name:
        report(
            OutputFinding(
                f"runs/{run_id}/run.json", f"calls its model and settings {record.recipe}, which are not so called"
            )
        )
    committed = sorted(committed_shards(output, run_id))
    plan = _Plan(output, record, report)
    _report_shards(record, plan.manifest, committed, report)

    def read(number: int) -> pa.Table | str:
        file = shard_key("results", run_id, number)
        try:
            return read_table(output.get(file), file, columns)
        except Exception as error:
            return trouble(error)

    tables = in_parallel(read, committed, threads=READS_AT_ONCE, name="results")
    for number, found in zip(committed, tables, strict=True):
        file = shard_key("results", run_id, number)
        planned = plan.shard(number)
        problem = found if isinstance(found, str) else _problem(found, number, planned, record)
        if problem is not None:
            report(OutputFinding(file, problem))
        else:
            yield CheckedShard(number, file, found)
    plan.finish()


class _Plan:
    """A run's plan, read once from front to back; what is wrong with it is reported, and then nothing is planned."""

    def __init__(self, output: Store, record: RunRecord, report: Report) -> None:
        self._folder = f"runs/{record.run_id}/plan"
        self._report = report
        self._images = self._bytes = self._shards = 0
        self._held: Shard | None = None
        self.manifest: PlanManifest | None = None
        self._rest: Iterator[Shard] = iter(())
        try:
            self.manifest = read_manifest(output, record.run_id)
        except Exception as error:
            self._fail(f"{self._folder}/plan.json", trouble(error))
            return
        if self.manifest is None:
            self._fail(self._folder, "the run has no complete plan")
            return
        self._rest = read_shards(output, record.run_id, self.manifest)
        if (record.images, record.shards) != (self.manifest.images, self.manifest.shards):
            self._fail(
                f"runs/{record.run_id}/run.json",
                f"says {record.images} images in {record.shards} shards, the plan says {self.manifest.images} in "
                f"{self.manifest.shards}",
            )

    @property
    def is_sound(self) -> bool:
        """Whether nothing was wrong with it so far."""
        return self.manifest is not None

    def shard(self, number: int) -> Shard | None:
        """The shard of that number; they are asked for in order. None where the plan cannot tell."""
        while self.is_sound and (self._held is None or self._held.number < number):
            if self._next() is None:
                return None
        return self._held if self.is_sound and self._held is not None and self._held.number == number else None

    def finish(self) -> None:
        """Read what is left of it, and hold its sums against its manifest."""
        while self.is_sound and self._next() is not None:
            pass
        if self.manifest is None:
            return
        found = (self._images, self._bytes, self._shards)
        told = (self.manifest.images, self.manifest.bytes, self.manifest.shards)
        if found != told:
            self._fail(
                self._folder,
                "its parts hold {} images of {} bytes in {} shards, ".format(*found)
                + "and plan.json says {}, {} and {}".format(*told),
            )

    def _next(self) -> Shard | None:
        try:
            self._held = next(self._rest, None)
            if self._held is not None:
                if self._held.number != self._shards:
                    self._fail(self._folder, f"shard {self._held.number} is where {self._shards} should be")
                    return None
                self._images += len(self._held.entries)
                self._bytes += sum(entry.size for entry in self._held.entries)
                self._shards += 1
        except Exception as error:
            self._fail(self._folder, trouble(error))
            return None
        return self._held

    def _fail(self, file: str, problem: str) -> None:
        self.manifest = None
        self._report(OutputFinding(file, problem))


def _report_shards(record: RunRecord, manifest: PlanManifest | None, committed: list[int], report: Report) -> None:
    if manifest is None:
        return
    missing = sorted(set(range(manifest.shards)) - set(committed))
    if record.state == "finished" and missing:
        report(
            OutputFinding(
                f"runs/{record.run_id}/plan", f"the run is finished, but shards {missing[:10]} are not committed"
            )
        )
    for number in [number for number in committed if number >= manifest.shards][:1]:
        report(OutputFinding(shard_key("results", record.run_id, number), "is a shard that was never planned"))


def _problem(rows: pa.Table, number: int, planned: Shard | None, record: RunRecord) -> str | None:
    """What makes these rows other than the planned shard's; None when nothing does."""
    try:
        if planned is not None:
            images = list(zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), strict=True))
            if images != [(entry.key, entry.etag) for entry in planned.entries]:
                return "its rows are not the images that were planned"
        for column, value in (("model_id", record.model_id), ("params_id", record.params_id)):
            if not pc.all(pc.equal(rows[column], value), min_count=0).as_py():
                return f"it has rows of another {column} than the run's"
        earlier = {each.index for each in planned.earlier} if planned is not None else set()
        return _misplaced_mask(rows, number, Recipe(record.model_id, record.params_id), record.generation, earlier)
    except Exception as error:
        return trouble(error)


def _misplaced_mask(
    rows: pa.Table, number: int, recipe: Recipe, generation: int, reconfirmed: Collection[int]
) -> str | None:
    """A row's mask that is not where the masks of its image are kept.

    Those of `reconfirmed` rows, given by index, are where an earlier run put them: with another shard, or under the
    name of an earlier generation.
    """
    every = range(generation + 1)
    columns = (rows[name].to_pylist() for name in ("key", "etag", "status", "mask_key"))
    for index, (key, etag, status, mask_key) in enumerate(zip(*columns, strict=True)):
        if status not in ("ok", "error"):
            return f"{key!r}: has the status {status!r}"
        if (status == "ok") != (mask_key is not None):
            return f"{key!r}: has status {status} and {'no' if mask_key is None else 'a'} mask"
        if mask_key is None:
            continue
        shard, generations = (None, every) if index in reconfirmed else (number, (generation,))
        if not format_of(mask_key).is_place(mask_key, recipe, (key, etag), shard, generations):
            return f"{key!r}: its mask {mask_key!r} is not where the masks of this image are kept"
    return None
