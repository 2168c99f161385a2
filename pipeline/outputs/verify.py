"""Does an output hold together? Masks, results and derived tables, checked against each other.

Reads everything and changes nothing. What the committed results say is the truth; what differs from it is a finding.
"""

import contextlib
import hashlib
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from fcn_core.errors import LabelError
from fcn_core.labels import decode_mask
from pipeline.errors import AccessDenied, ObjectMissing, StorageError, StorageUnavailable
from pipeline.outputs import runs
from pipeline.outputs.mask_tars import read_tar
from pipeline.outputs.masks import MaskPart, mask_part, read_mask
from pipeline.outputs.plan import read_manifest, read_shards
from pipeline.outputs.results import (
    class_totals,
    committed_shards,
    encode_class_areas,
    read_class_totals,
    read_results,
    read_table,
    result_runs,
    shard_key,
)
from pipeline.outputs.verify_index import verify_index
from pipeline.storage.store import Store

MASKS_AT_ONCE = 32


@dataclass(frozen=True)
class Finding:
    """One thing that differs from what it should be: which file, and how."""

    file: str
    problem: str


@dataclass
class Verified:
    """How much was checked."""

    runs: int = 0
    rows: int = 0
    masks: int = 0


def verify(output: Store, checked: Verified, *, masks: bool = True) -> Iterator[Finding]:
    """Every difference under `output`, run by run; `checked` counts on the way. Without `masks` they are not read."""
    recorded = set(runs.run_ids(output))
    for run_id in sorted(recorded | set(result_runs(output)), reverse=True):
        checked.runs += 1
        if run_id not in recorded:
            yield Finding(f"results/run_id={run_id}", "are results of a run that has no run.json")
            continue
        try:
            record = runs.read_record(output, run_id)
        except runs.DamagedRecord as error:
            yield Finding(f"runs/{run_id}/run.json", str(error))
            continue
        yield from _readable(_verify_run(output, record, checked, masks), f"results/run_id={run_id}")
    yield from _readable((Finding(file, problem) for file, problem in verify_index(output)), "index")


def _readable(findings: Iterator[Finding], where: str) -> Iterator[Finding]:
    """`findings`, up to a file that cannot be understood, which is one more: the check goes on elsewhere."""
    try:
        yield from findings
    except (StorageUnavailable, AccessDenied):
        raise
    except StorageError as error:
        yield Finding(where, str(error))


def _verify_run(output: Store, record: runs.RunRecord, checked: Verified, masks: bool) -> Iterator[Finding]:
    committed = committed_shards(output, record.run_id)
    yield from _verify_plan(output, record, committed)
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    with ThreadPoolExecutor(MASKS_AT_ONCE, "verify") as threads:
        for number, table in zip(sorted(committed), read_results(output, record.run_id), strict=True):
            rows = table.to_pylist()
            checked.rows += len(rows)
            yield from _verify_areas(output, record.run_id, number, table)
            for row in rows:
                yield from _verify_row(row, shard_key("results", record.run_id, number))
                pixels.update({area["class_id"]: area["pixels"] for area in row["areas"] or ()})
                images.update(area["class_id"] for area in row["areas"] or ())
            if masks:
                yield from _verify_masks(output, [row for row in rows if row["status"] == "ok"], checked, threads)
    if record.state == "finished":
        yield from _verify_totals(output, record.run_id, pixels, images)


def _verify_plan(output: Store, record: runs.RunRecord, committed: set[int]) -> Iterator[Finding]:
    where = f"runs/{record.run_id}/plan"
    manifest = read_manifest(output, record.run_id)
    if manifest is None:
        yield Finding(where, "the run has no complete plan")
        return
    if record.state == "finished" and committed != set(range(manifest.shards)):
        missing = sorted(set(range(manifest.shards)) - committed)
        yield Finding(where, f"the run is finished, but shards {missing[:10]} are not committed")
    unplanned = sorted(committed - set(range(manifest.shards)))
    if unplanned:
        yield Finding(shard_key("results", record.run_id, unplanned[0]), "is a shard that was never planned")
    planned = (shard for shard in read_shards(output, record.run_id, manifest) if shard.number in committed)
    for shard, table in zip(planned, read_results(output, record.run_id, ["key", "etag"]), strict=False):
        if list(zip(*table.to_pydict().values(), strict=True)) != [(entry.key, entry.etag) for entry in shard.entries]:
            yield Finding(
                shard_key("results", record.run_id, shard.number), "its rows are not the images that were planned"
            )


def _verify_areas(output: Store, run_id: str, number: int, results: pa.Table) -> Iterator[Finding]:
    key = shard_key("class_areas", run_id, number)
    try:
        there = read_table(output.get(key), key)
    except ObjectMissing:
        yield Finding(key, "is missing; an unfinished run makes it at its end, for a finished one see docs/upkeep.md")
        return
    except StorageError as error:
        yield Finding(key, str(error))
        return
    if not there.equals(read_table(encode_class_areas(results), key)):
        yield Finding(key, "does not follow from the results")


def _verify_row(row: dict[str, Any], file: str) -> Iterator[Finding]:
    if row["status"] == "ok":
        covered = sum(area["pixels"] for area in row["areas"])
        if covered != row["width"] * row["height"]:
            yield Finding(file, f"{row['key']!r}: areas add up to {covered}, not {row['width']} x {row['height']}")
    elif not row["error"] or not row["message"]:
        yield Finding(file, f"{row['key']!r}: an error without a reason")


def _verify_masks(
    output: Store, rows: list[dict[str, Any]], checked: Verified, threads: ThreadPoolExecutor
) -> Iterator[Finding]:
    """The masks of one shard; where they are in a tar, that is read once, as a whole."""
    parts = [part for row in rows if (part := mask_part(row["mask_key"]))]
    tars: dict[str, bytes] = {}
    for file in sorted({part.file for part in parts}):
        with contextlib.suppress(ObjectMissing):  # then each of its masks is a finding
            tars[file] = output.get(file)
            yield from _verify_tar(file, tars[file], [part for part in parts if part.file == file])

    def read(mask_key: str) -> bytes:
        part = mask_part(mask_key)
        if part is None or part.file not in tars:
            return read_mask(output, mask_key)
        return tars[part.file][part.offset : part.offset + part.length]

    labelled = iter(rows)
    while chunk := list(islice(labelled, MASKS_AT_ONCE * 4)):
        checked.masks += len(chunk)
        for findings in threads.map(lambda row: list(_verify_mask(read, row)), chunk):
            yield from findings


def _verify_mask(read: Callable[[str], bytes], row: dict[str, Any]) -> Iterator[Finding]:
    key = row["mask_key"]
    try:
        data = read(key)
        mask = decode_mask(data)
    except ObjectMissing:
        yield Finding(key, f"the mask of {row['key']!r} is missing")
        return
    except (LabelError, StorageError) as error:
        yield Finding(key, str(error))
        return
    if hashlib.sha256(data).hexdigest() != row["mask_sha256"]:
        yield Finding(key, "its SHA-256 is not the one in results")
    if mask.shape != (row["height"], row["width"]):
        yield Finding(key, f"is {mask.shape[1]}x{mask.shape[0]}, not {row['width']}x{row['height']}")
    counts = np.bincount(mask.ravel())
    if {int(i): int(counts[i]) for i in np.flatnonzero(counts)} != {a["class_id"]: a["pixels"] for a in row["areas"]}:
        yield Finding(key, "its pixels are not the areas in results")


def _verify_tar(file: str, data: bytes, parts: list[MaskPart]) -> Iterator[Finding]:
    """Whether others than us can read the tar: every mask is where a header says that a member is."""
    try:
        members = set(read_tar(data).values())
    except tarfile.TarError as error:
        yield Finding(file, f"is no tar that can be read ({error})")
        return
    lost = [part for part in parts if (part.offset, part.length) not in members]
    if lost:
        yield Finding(file, f"{len(lost)} masks, {lost[0]} first, are where the tar has no member")


def _verify_totals(output: Store, run_id: str, pixels: Counter[int], images: Counter[int]) -> Iterator[Finding]:
    key = f"class_totals/run_id={run_id}.parquet"
    try:
        totals = read_class_totals(output, run_id)
    except StorageError as error:
        yield Finding(key, str(error))
        return
    if totals != class_totals(
        [total.class_name for total in totals],
        [pixels[total.class_id] for total in totals],
        [images[total.class_id] for total in totals],
    ) or not pixels.keys() <= {total.class_id for total in totals}:
        yield Finding(key, "does not follow from the results")
