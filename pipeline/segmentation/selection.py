"""Which listed objects a job works on: suffixes or globs first, then what is done already is left out.

Selection streams: it holds no list of objects, only counters, and an index of what is done.
"""

import fnmatch
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import TRANSIENT_ERRORS, read_results, result_runs
from pipeline.storage.store import ObjectInfo, Store

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif",
)  # fmt: skip
"""Taken when a job names no --include, in any case. Everything else is counted as left out."""


@dataclass
class SelectionCounts:
    """What became of the objects that were listed."""

    listed: int = 0
    left_out: int = 0
    done: int = 0
    failed_before: int = 0  # of those done: images that could not be read
    selected: int = 0
    selected_bytes: int = 0


class DoneIndex:
    """The (key, etag) pairs that a recipe has finished with: committed ok, or failed for a reason in the image itself.

    Holds 16 bytes an image, so ten million done images take about a gigabyte of Python objects.
    """

    def __init__(self) -> None:
        self._done: set[bytes] = set()
        self._failed: set[bytes] = set()

    @classmethod
    def of(
        cls,
        output: Store,
        recipe: Recipe,
        *,
        retry_errors: bool = False,
        settled: Collection[str] = (),
        on_file: Callable[[], None] = lambda: None,
    ) -> "DoneIndex":
        """Read it from the committed results under OUTPUT.

        With `retry_errors` only ok rows count as done, and the errors of runs in `settled`. `on_file` is called for
        each file read; it may raise to stop.
        """
        index = cls()
        columns = ["key", "etag", "status", "error", "model_id", "params_id"]
        for run_id in result_runs(output):
            retry = retry_errors and run_id not in settled
            for table in read_results(output, run_id, columns):
                on_file()
                mine = pc.and_(
                    pc.equal(table["model_id"], recipe.model_id),
                    pc.equal(table["params_id"], recipe.params_id),
                )
                rows = table.filter(mine).select(["key", "etag", "status", "error"])
                for key, etag, status, error in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                    if status == "ok" or (not retry and error not in TRANSIENT_ERRORS):
                        index.add(key, etag, failed=status != "ok")
        return index

    def add(self, key: str, etag: str, *, failed: bool = False) -> None:
        fingerprint = _fingerprint(key, etag)
        self._done.add(fingerprint)
        (self._failed.add if failed else self._failed.discard)(fingerprint)

    def failed(self, key: str, etag: str) -> bool:
        """Whether this image is done without a mask."""
        return _fingerprint(key, etag) in self._failed

    def __contains__(self, identity: tuple[str, str]) -> bool:
        return _fingerprint(*identity) in self._done

    def __len__(self) -> int:
        return len(self._done)


def select(
    listing: Iterable[ObjectInfo],
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    done: DoneIndex,
    counts: SelectionCounts,
) -> Iterator[ObjectInfo]:
    """The objects of `listing` to work on, in its order; `counts` is kept up to date on the way."""
    wanted = key_filter(include, exclude)
    for info in listing:
        counts.listed += 1
        if not wanted(info.key):
            counts.left_out += 1
        elif (info.key, info.etag) in done:
            counts.done += 1
            counts.failed_before += done.failed(info.key, info.etag)
        else:
            counts.selected += 1
            counts.selected_bytes += info.size
            yield info


def key_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A predicate on keys. Globs match whole keys and `*` crosses `/`, as in the AWS CLI; `**/` may match nothing."""
    excluded = _any_glob(exclude)
    if include:
        included = _any_glob(include)
        return lambda key: included(key) and not excluded(key)
    return lambda key: key.lower().endswith(IMAGE_SUFFIXES) and not excluded(key)


def _any_glob(patterns: Sequence[str]) -> Callable[[str], bool]:
    if not patterns:
        return lambda key: False
    variants = [variant for pattern in patterns for variant in {pattern, pattern.replace("**/", "")}]
    expression = re.compile("|".join(fnmatch.translate(variant) for variant in sorted(variants)))
    return lambda key: expression.match(key) is not None


def _fingerprint(key: str, etag: str) -> bytes:
    return hashlib.blake2b(f"{key}\0{etag}".encode(), digest_size=16).digest()
