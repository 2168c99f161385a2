"""Does an output hold together? Masks, results and derived tables, checked against each other.

Reads everything and changes nothing. What the committed results say is the truth; what differs from it is a finding.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from fcn_core.labels import VOID, decode_mask
from pipeline.errors import ObjectMissing
from pipeline.outputs import runs
from pipeline.outputs.checked import CheckedShard, OutputFinding, checked_results, trouble
from pipeline.outputs.mask_formats import format_of
from pipeline.outputs.masks import mask_file, read_mask
from pipeline.outputs.results import (
    RunTally,
    class_totals,
    encode_class_areas,
    read_class_totals,
    read_table,
    result_runs,
    shard_key,
    tally,
)
from pipeline.outputs.verify_index import verify_index
from pipeline.storage.store import Store

MASKS_AT_ONCE = 32


@dataclass
class Verified:
    """How much was checked."""

    runs: int = 0
    rows: int = 0
    masks: int = 0


def verify(output: Store, checked: Verified, *, masks: bool = True) -> Iterator[OutputFinding]:
    """Every difference under `output`, run by run; `checked` counts on the way. Without `masks` they are not read.

    However a file is damaged, it is a finding, and the others are checked all the same. Raises AccessDenied and
    StorageUnavailable alone.
    """
    recorded = set(runs.run_ids(output))
    repaired: set[bytes] = set()
    for run_id in sorted(recorded | set(result_runs(output)), reverse=True):
        checked.runs += 1
        if run_id not in recorded:
            yield OutputFinding(f"results/run_id={run_id}", "are results of a run that has no run.json")
            continue
        try:
            record = runs.read_record(output, run_id)
        except Exception as error:
            yield OutputFinding(f"runs/{run_id}/run.json", trouble(error))
            continue
        yield from _with_trouble(_verify_run(output, record, checked, masks, repaired), f"results/run_id={run_id}")
    yield from _with_trouble((OutputFinding(file, problem) for file, problem in verify_index(output)), "index")


def _with_trouble(findings: Iterator[OutputFinding], where: str) -> Iterator[OutputFinding]:
    """`findings`, up to a file that cannot be understood, which is one more: the check goes on elsewhere."""
    try:
        yield from findings
    except Exception as error:
        yield OutputFinding(where, trouble(error))


def _verify_run(
    output: Store, record: runs.RunRecord, checked: Verified, masks: bool, repaired: set[bytes]
) -> Iterator[OutputFinding]:
    """`repaired` are images of newer runs that replaced lost masks: an older row may have lost its own. The run's are
    added, if it is such a run."""
    found: list[OutputFinding] = []
    seen = RunTally()
    with ThreadPoolExecutor(MASKS_AT_ONCE, "verify") as threads:
        for shard in checked_results(output, record, found.append):
            findings = _verify_shard(output, record, shard, checked, seen, threads if masks else None, repaired)
            found += _with_trouble(findings, shard.file)
            yield from found
            found.clear()
    yield from found
    # What is summed over all shards can only be judged when all of them are there.
    if record.state == "finished" and len(seen.shards) == record.shards:
        yield from _with_trouble(_verify_sums(output, record, seen), f"class_totals/run_id={record.run_id}.parquet")


def _verify_shard(
    output: Store,
    record: runs.RunRecord,
    shard: CheckedShard,
    checked: Verified,
    seen: RunTally,
    threads: ThreadPoolExecutor | None,
    repaired: set[bytes],
) -> Iterator[OutputFinding]:
    rows = shard.rows.to_pylist()
    checked.rows += len(rows)
    seen.add(shard.number, tally(shard.rows))
    yield from _verify_areas(output, record, shard)
    for row in rows:
        yield from _verify_row(row, shard.file)
    if threads is not None:
        ok = [row for row in rows if row["status"] == "ok"]
        yield from _verify_masks(output, ok, checked, threads, repaired)
        if record.job.get("repair"):
            repaired.update(map(_identity, ok))


def _verify_areas(output: Store, record: runs.RunRecord, shard: CheckedShard) -> Iterator[OutputFinding]:
    key = shard_key("class_areas", record.run_id, shard.number)
    try:
        there = read_table(output.get(key), key)
    except ObjectMissing:
        if record.state == "finished":  # of another run they come at its end
            yield OutputFinding(key, "is missing; see docs/upkeep.md")
        return
    except Exception as error:
        yield OutputFinding(key, trouble(error))
        return
    if not there.equals(read_table(encode_class_areas(shard.rows), key)):
        yield OutputFinding(key, "does not follow from the results")


def _verify_row(row: dict[str, Any], file: str) -> Iterator[OutputFinding]:
    if row["status"] == "ok":
        covered = sum(area["pixels"] for area in row["areas"])
        if covered != row["width"] * row["height"]:
            yield OutputFinding(
                file, f"{row['key']!r}: areas add up to {covered}, not {row['width']} x {row['height']}"
            )
    elif not row["error"] or not row["message"]:
        yield OutputFinding(file, f"{row['key']!r}: an error without a reason")


def _verify_masks(
    output: Store, rows: list[dict[str, Any]], checked: Verified, threads: ThreadPoolExecutor, repaired: set[bytes]
) -> Iterator[OutputFinding]:
    """The masks of one shard; a file that holds many of them is read once, as a whole."""
    shared: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if format_of(row["mask_key"]).is_shared:
            shared[mask_file(row["mask_key"])].append(row["mask_key"])
    files: dict[str, bytes] = {}
    for file, mask_keys in sorted(shared.items()):
        with contextlib.suppress(ObjectMissing):  # then each of its masks is a finding
            files[file] = output.get(file)
            problems = format_of(file).problems(file, files[file], mask_keys)
            yield from _with_trouble((OutputFinding(file, problem) for problem in problems), file)

    def read(mask_key: str) -> bytes:
        file = mask_file(mask_key)
        return format_of(mask_key).extract(files[file], mask_key) if file in files else read_mask(output, mask_key)

    def check(row: dict[str, Any]) -> list[OutputFinding]:
        is_repaired = bool(repaired) and _identity(row) in repaired
        return list(_with_trouble(_verify_mask(read, row, is_repaired), row["mask_key"]))

    labelled = iter(rows)
    while chunk := list(islice(labelled, MASKS_AT_ONCE * 4)):
        checked.masks += len(chunk)
        for findings in threads.map(check, chunk):
            yield from findings


def _identity(row: dict[str, Any]) -> bytes:
    identity = "\0".join(row[name] for name in ("etag", "model_id", "params_id", "key"))
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()


def _verify_mask(read: Callable[[str], bytes], row: dict[str, Any], is_repaired: bool) -> Iterator[OutputFinding]:
    key = row["mask_key"]
    try:
        data = read(key)
    except ObjectMissing:
        if not is_repaired:
            yield OutputFinding(
                key, f"the mask of {row['key']!r} is missing; `fcn segment ... --repair` makes it again"
            )
        return
    if hashlib.sha256(data).hexdigest() != row["mask_sha256"]:
        yield OutputFinding(key, "its SHA-256 is not the one in results")
        return
    mask = decode_mask(data)
    if mask.shape != (row["height"], row["width"]):
        yield OutputFinding(key, f"is {mask.shape[1]}x{mask.shape[0]}, not {row['width']}x{row['height']}")
    counts = np.bincount(mask.ravel())
    if {int(i): int(counts[i]) for i in np.flatnonzero(counts)} != {a["class_id"]: a["pixels"] for a in row["areas"]}:
        yield OutputFinding(key, "its pixels are not the areas in results")


def _verify_sums(output: Store, record: runs.RunRecord, seen: RunTally) -> Iterator[OutputFinding]:
    key = f"class_totals/run_id={record.run_id}.parquet"
    totals = read_class_totals(output, record.run_id)
    known = {total.class_id for total in totals}
    classes = [total for total in totals if total.class_id != VOID]
    if (
        totals
        != class_totals(
            [total.class_name for total in classes],
            [seen.pixels[total.class_id] for total in classes],
            [seen.images[total.class_id] for total in classes],
            (seen.pixels[VOID], seen.images[VOID]),
        )
        or not {index for index, pixels in seen.pixels.items() if pixels} <= known
    ):
        yield OutputFinding(key, "does not follow from the results")
    counts = runs.Counts(images=seen.ok + seen.errors.total(), ok=seen.ok, errors=dict(sorted(seen.errors.items())))
    if record.counts != counts:
        yield OutputFinding(
            f"runs/{record.run_id}/run.json",
            f"says {record.counts.ok} masks and {record.counts.failed} errors, the results say {counts.ok} and "
            f"{counts.failed}",
        )
