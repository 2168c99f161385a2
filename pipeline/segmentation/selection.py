"""Which listed objects a job works on: suffixes or globs first, then what is done already is left out.

Selection streams, a hundred thousand objects at a time as Arrow batches: it holds no list of objects, only counters,
and of what is done the stretch that the listing is at.
"""

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.outputs.compact import read_late
from pipeline.outputs.identity import Recipe
from pipeline.outputs.index import INDEX_SCHEMA, History, IndexReader, read_history, rows_between
from pipeline.outputs.lost_masks import Identity
from pipeline.outputs.results import TRANSIENT_ERRORS
from pipeline.storage.store import Store

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif",
)  # fmt: skip
"""Taken when a job names no --include, in any case. Everything else is counted as left out."""

LOOKED_UP_AT_ONCE = 1 << 17
"""Listed objects that are held against what is done together: about 20 MB, and as much of what is done."""


Mask = npt.NDArray[np.bool_]


@dataclass
class SelectionCounts:
    """What became of the objects that were listed."""

    listed: int = 0
    left_out: int = 0
    done: int = 0
    failed_before: int = 0  # of those done: images that could not be read
    selected: int = 0
    selected_bytes: int = 0


def nothing_chosen(counts: SelectionCounts, source: str, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """Why a job has nothing to do though nothing was ever done, when all of its listing has been counted: nobody means
    that. None where there is something to do, or was."""
    if counts.selected or counts.done:
        return None
    if not counts.listed:
        return f"there is nothing under {source}"
    given = [f"{name} {glob!r}" for name, globs in (("--include", include), ("--exclude", exclude)) for glob in globs]
    if not given:
        return f"none of the {counts.listed:,} objects under {source} is named like an image; --include takes others"
    return (
        f"none of the {counts.listed:,} objects under {source} is chosen by {' '.join(given)}; a glob is held against "
        "the whole key, as '*.jpg' or 'cam1/*' is"
    )


class DoneIndex:
    """The (key, etag) pairs that a recipe has finished with: committed ok, or failed for a reason in the image itself.

    Of two rows about one pair, the later one (by run, shard, row) tells whether it failed. Holds the results that no
    compacted index covers, about 100 bytes a row, and one part of the index.
    """

    def __init__(
        self,
        late: pa.Table,
        index: IndexReader,
        *,
        retry_errors: bool,
        settled: Collection[str],
        lost: Collection[Identity] = (),
    ) -> None:
        self._late = late
        self._index = index
        self._retry_errors = retry_errors
        self._settled = pa.array(sorted(settled), pa.string())
        images = sorted(lost)
        self._lost = _identities(*(pa.array([image[place] for image in images], pa.string()) for place in (0, 1)))

    @classmethod
    def of(
        cls,
        output: Store,
        recipe: Recipe,
        *,
        history: History | None = None,
        retry_errors: bool = False,
        settled: Collection[str] = (),
        lost: Collection[Identity] = (),
        on_file: Callable[[], None] = lambda: None,
    ) -> "DoneIndex":
        """Read it from the committed results under OUTPUT and their index (`history`, when it was read already).

        With `retry_errors` only ok rows count as done, and the errors of runs in `settled`; rows of masks that are
        `lost` never do. `on_file` is called for each results file read; it may raise to stop.
        """
        history = history or read_history(output)
        pieces = [INDEX_SCHEMA.empty_table()]
        for table in read_late(output, history, on_file):
            of_recipe = pc.and_(
                pc.equal(table["model_id"], recipe.model_id), pc.equal(table["params_id"], recipe.params_id)
            )
            pieces.append(table.filter(of_recipe).select(INDEX_SCHEMA.names))
        late = pa.concat_tables(pieces).sort_by("key").combine_chunks()
        index = IndexReader(output, history, recipe)
        return cls(late, index, retry_errors=retry_errors, settled=settled, lost=lost)

    def look_up(self, keys: pa.Array, etags: pa.Array) -> tuple[Mask, Mask]:
        """Which of these images are done, and which of them are done without a mask.

        Any order of keys gives the same answer; rising ones, as listings have them, give it quickest.
        """
        if not len(keys):
            return np.zeros(0, bool), np.zeros(0, bool)
        wanted = _identities(keys, etags)
        first, last = pc.min_max(keys).as_py().values()
        found = [INDEX_SCHEMA.empty_table().append_column("identity", pa.array([], pa.string()))]
        for rows in [*self._index.between(first, last), rows_between(self._late, first, last)]:
            rows = self._that_count(rows)
            rows = rows.append_column("identity", _identities(rows["key"], rows["etag"]))
            if len(self._lost):
                gone = pc.and_(pc.is_null(rows["error"]), pc.is_in(rows["identity"], value_set=self._lost))
                rows = rows.filter(pc.invert(gone))
            found.append(rows.filter(pc.is_in(rows["identity"], value_set=wanted)))
        rows = pa.concat_tables(found)
        done = _mask(pc.is_in(wanted, value_set=rows["identity"]))
        errors = rows.filter(pc.is_valid(rows["error"]))
        if not len(errors):
            return done, np.zeros_like(done)
        contested = rows.filter(pc.is_in(rows["identity"], value_set=errors["identity"]))
        return done, _last_is_error(wanted, contested)

    def _that_count(self, rows: pa.Table) -> pa.Table:
        permanent = pc.invert(pc.is_in(rows["error"], value_set=pa.array(sorted(TRANSIENT_ERRORS))))
        if self._retry_errors:
            permanent = pc.and_(permanent, pc.is_in(rows["run_id"], value_set=self._settled))
        return rows.filter(pc.or_(pc.is_null(rows["error"]), permanent))


def _identities(keys: pa.Array | pa.ChunkedArray, etags: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    # An etag is a header's value and holds no NUL, so two pairs never read the same.
    return pc.binary_join_element_wise(etags, keys, "\0")


def _last_is_error(wanted: pa.Array, rows: pa.Table) -> Mask:
    """For each identity in `wanted`: is there a row of it, and is the last one an error?"""
    # A stable sort, so the rows of one shard stay in order; turned round, because the first match is what is found.
    rows = rows.sort_by([("run_id", "ascending"), ("shard", "ascending")])
    rows = rows.take(pa.array(range(len(rows) - 1, -1, -1), pa.int64()))
    place = pc.index_in(wanted, value_set=rows["identity"])
    return _mask(pc.fill_null(pc.is_valid(rows["error"]).take(place), False))


def select(
    listing: Iterable[pa.RecordBatch],
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    done: DoneIndex,
    counts: SelectionCounts,
    limit: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """The objects of `listing` (batches of LISTING_SCHEMA) to work on, in its order, at most `limit`; no empty batches.

    `counts` is kept up to date on the way; what is listed after the last object that is taken is not counted.
    """
    wanted = key_filter(include, exclude)
    for batch in _gathered(listing):
        is_image = wanted(batch["key"])
        images = batch.filter(pa.array(is_image))
        is_done, has_failed = np.zeros((2, len(batch)), bool)
        is_done[is_image], has_failed[is_image] = done.look_up(images["key"], images["etag"])
        chosen = is_image & ~is_done
        left = None if limit is None else limit - counts.selected
        if left is not None and chosen.sum() >= left:
            end = int(np.flatnonzero(chosen)[left - 1]) + 1
            batch, is_image, is_done, has_failed, chosen = (
                each[:end] for each in (batch, is_image, is_done, has_failed, chosen)
            )
        selected = batch.filter(pa.array(chosen))
        counts.listed += len(batch)
        counts.left_out += int((~is_image).sum())
        counts.done += int(is_done.sum())
        counts.failed_before += int(has_failed.sum())
        counts.selected += len(selected)
        counts.selected_bytes += pc.sum(selected["size"]).as_py() or 0
        if len(selected):
            yield selected
        if counts.selected == limit:
            return


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in larger batches: small ones at first, for jobs that end after a few images."""
    held: list[pa.RecordBatch] = []
    rows, enough = 0, 1
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        if rows >= enough:
            yield pa.concat_batches(held)
            enough = min(2 * rows, LOOKED_UP_AT_ONCE)
            held, rows = [], 0
    if rows:
        yield pa.concat_batches(held)


def key_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[pa.Array], Mask]:
    """A predicate on arrays of keys. Globs match whole keys and `*` crosses `/`, as in the AWS CLI; `**/` may match
    nothing.
    """
    included = _any_glob(include) if include else _is_image
    if not exclude:
        return included
    excluded = _any_glob(exclude)
    return lambda keys: included(keys) & ~excluded(keys)


def _is_image(keys: pa.Array) -> Mask:
    suffixes = "|".join(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
    return _mask(pc.match_substring_regex(keys, rf"\.(?:{suffixes})\z", ignore_case=True))


def _any_glob(patterns: Sequence[str]) -> Callable[[pa.Array], Mask]:
    variants = sorted({variant for pattern in patterns for variant in (pattern, pattern.replace("**/", ""))})
    if any("[" in variant for variant in variants):
        # Only Python reads these as Python's fnmatch does.
        expression = re.compile("|".join(map(fnmatch.translate, variants)))
        return lambda keys: np.array([expression.match(key) is not None for key in keys.to_pylist()], bool)
    simple = "|".join(re.escape(variant).replace(r"\*", ".*").replace(r"\?", ".") for variant in variants)
    return lambda keys: _mask(pc.match_substring_regex(keys, rf"(?s)\A(?:{simple})\z"))


def _mask(answers: pa.Array | pa.ChunkedArray) -> Mask:
    answers = answers.combine_chunks() if isinstance(answers, pa.ChunkedArray) else answers
    mask: Mask = answers.to_numpy(zero_copy_only=False)
    return mask
