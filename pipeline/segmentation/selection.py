"""Which listed objects a job works on: suffixes or globs first, then what is done already is left out.

Selection streams, a hundred thousand objects at a time as Arrow batches: it holds no list of objects, only counters,
and of what is done the stretch that the listing is at.

An image is done by the row of its identity. `current` is the newest row of its key, which may be another: the image was
replaced, and then the earlier one came back. Such an image is reconfirmed: its row is committed again, so that there is
one answer.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.decoding import heif
from pipeline.errors import StorageError, StorageUnavailable
from pipeline.outputs.compact import read_late
from pipeline.outputs.identity import Identity, Recipe
from pipeline.outputs.index import INDEX_SCHEMA, CommittedResults, IndexReader, read_history, rows_between
from pipeline.outputs.plan import EARLIER
from pipeline.outputs.results import TRANSIENT_ERRORS
from pipeline.segmentation.choice import Mask, are_members, are_unreadable, as_mask, entry_filter
from pipeline.segmentation.sources import HEADS_AT_ONCE
from pipeline.storage.store import Store

_INSTALL_HEIF = f"what reads HEIC is an extra: pip install '{heif.EXTRA}'"
_SUFFIXES_SHOWN = 5
_SUFFIXES_COUNTED = 1000

LOOKED_UP_AT_ONCE = 1 << 17
"""Listed objects that are held against what is done together: about 20 MB, and as much of what is done."""


@dataclass
class SelectionCounts:
    """What became of the objects that were listed."""

    listed: int = 0
    left_out: int = 0
    done: int = 0
    failed_before: int = 0  # of those done or reconfirmed: images that could not be read
    reconfirmed: int = 0  # done, but a later row says otherwise: the row that is right is committed again
    selected: int = 0
    selected_bytes: int = 0
    unreadable: int = 0  # of those selected: HEIC and HEIF by name, while the extra that reads them is missing
    in_containers: int = 0  # of those selected: members of containers
    bytes_in_containers: int = 0
    suffixes: dict[str, int] = dataclass_field(default_factory=dict, compare=False)
    """How many of those left out have which ending, in lower case; "" is none."""


def nothing_chosen(counts: SelectionCounts, source: str, include: Sequence[str], exclude: Sequence[str]) -> str | None:
    """Why a job has nothing to do though nothing was ever done, when all of its listing has been counted: nobody means
    that. None where there is something to do, or was."""
    if counts.done or counts.reconfirmed or counts.selected > counts.unreadable:
        return None
    if counts.unreadable:
        return f"all {counts.unreadable:,} images chosen under {source} are HEIC or HEIF; {_INSTALL_HEIF}"
    if not counts.listed:
        return f"there is nothing under {source}"
    given = [f"{name} {glob!r}" for name, globs in (("--include", include), ("--exclude", exclude)) for glob in globs]
    if not given:
        return (
            f"none of the {counts.listed:,} objects under {source} is named like an image that is read "
            f"({suffixes_text(counts)}); {ways_to_take(counts)}"
            + (", and --image-column names the images of Parquet files" if ".parquet" in counts.suffixes else "")
        )
    return (
        f"none of the {counts.listed:,} objects under {source} is chosen by {' '.join(given)}; a glob is held against "
        "the whole key, as '*.jpg' or 'cam1/*' is"
    )


def suffixes_text(counts: SelectionCounts) -> str:
    """What was left out, the most frequent endings first: "412 .heic, 3 .mov"."""
    most = sorted(counts.suffixes.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {suffix or 'without an ending'}" for suffix, count in most[:_SUFFIXES_SHOWN]]
    rest = sum(count for _, count in most[_SUFFIXES_SHOWN:])
    return ", ".join(named + ([f"{rest:,} others"] if rest else []))


def ways_to_take(counts: SelectionCounts) -> str:
    """How to have what was left out."""
    missing = not heif.is_installed() and any(suffix in counts.suffixes for suffix in heif.SUFFIXES)
    return f"{_INSTALL_HEIF}; --include takes others" if missing else "--include takes others"


def _count_suffixes(keys: pa.Array, into: dict[str, int]) -> None:
    if not len(keys):
        return
    found = pc.struct_field(pc.extract_regex(pc.utf8_lower(keys), r"(?P<suffix>\.[a-z0-9_]{1,10})\z"), "suffix")
    for row in pc.value_counts(pc.fill_null(found, "")).to_pylist():
        if row["values"] in into or len(into) < _SUFFIXES_COUNTED:
            into[row["values"]] = into.get(row["values"], 0) + row["counts"]


@dataclass(frozen=True)
class Found:
    """What results say of images, one after the other.

    Those that are `done`, which of them have no mask (`failed`), and which of them are `overruled`: the newest row of
    their key is another than the one that is right. Where the right one is (`earlier_run`, `earlier_shard`) is null of
    all but those.
    """

    done: Mask
    failed: Mask
    overruled: Mask
    earlier_run: pa.Array
    earlier_shard: pa.Array


class DoneIndex:
    """The (key, etag) pairs that a recipe has finished with: committed ok, or failed for a reason in the image itself.

    Of several rows about one pair, one that is ok is right before all that are not, and a later one (by run, shard,
    row) before an earlier one. Holds the results that no compacted index covers, about 100 bytes per row, and one part
    of the index.
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
        self._lost = identities(*(pa.array([image[place] for image in images], pa.string()) for place in (0, 1)))

    @classmethod
    def of(
        cls,
        output: Store,
        recipe: Recipe,
        *,
        history: CommittedResults | None = None,
        retry_errors: bool = False,
        settled: Collection[str] = (),
        lost: Collection[Identity] = (),
        on_file: Callable[[], None] = lambda: None,
    ) -> "DoneIndex":
        """Read it from the committed results under OUTPUT and their index (`history`, when it was read already).

        With `retry_errors` only ok rows count as done, and the errors of runs in `settled`; no row of images that
        have `lost` their masks does. `on_file` is called for each results file read; it may raise to stop.
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

    def look_up(self, keys: pa.Array, etags: pa.Array) -> Found:
        """What results say of these images; no key comes twice.

        Any order of keys gives the same answer; rising ones, as listings have them, give it quickest.
        """
        nowhere = Found(*np.zeros((3, len(keys)), bool), *(pa.nulls(len(keys), field.type) for field in EARLIER))
        if not len(keys):
            return nowhere
        wanted = identities(keys, etags)
        first, last = pc.min_max(keys).as_py().values()
        found = [_LOOKED_AT.empty_table()]
        for rows in [*self._index.between(first, last), rows_between(self._late, first, last)]:
            rows = rows.append_column("identity", identities(rows["key"], rows["etag"]))
            counts = pc.and_(self._counts(rows), pc.is_in(rows["identity"], value_set=wanted))
            if len(self._lost):
                counts = pc.and_(counts, pc.invert(pc.is_in(rows["identity"], value_set=self._lost)))
            found.append(rows.append_column("counts", counts))
        rows = pa.concat_tables(found)
        done = as_mask(pc.is_in(wanted, value_set=rows.filter(rows["counts"])["identity"]))
        # Errors, and other versions of an image: rarely more than a few, so there is time for an order.
        plain = pc.and_(rows["counts"], pc.is_null(rows["error"]))
        contested = rows.filter(pc.invert(plain))["key"]
        contested = contested.filter(pc.is_in(contested, value_set=keys))
        if not len(contested):
            return replace(nowhere, done=done)
        rows = _newest_first(rows.filter(pc.is_in(rows["key"], value_set=contested)))
        right = _ok_first(rows.filter(rows["counts"]))
        place = pc.index_in(wanted, value_set=right["identity"])
        failed = as_mask(pc.fill_null(pc.is_valid(right["error"]).take(place), False))
        newest = pc.index_in(keys, value_set=rows["key"])
        overruled = as_mask(pc.fill_null(pc.not_equal(right["place"].take(place), newest), False))
        earlier = (
            pc.if_else(pa.array(overruled), right[name].take(place), None).combine_chunks()
            for name in ("run_id", "shard")
        )
        return Found(done, failed, overruled, *earlier)

    def _counts(self, rows: pa.Table) -> pa.ChunkedArray:
        permanent = pc.invert(pc.is_in(rows["error"], value_set=pa.array(sorted(TRANSIENT_ERRORS))))
        if self._retry_errors:
            permanent = pc.and_(permanent, pc.is_in(rows["run_id"], value_set=self._settled))
        return pc.or_(pc.is_null(rows["error"]), permanent)


_LOOKED_AT = INDEX_SCHEMA.append(pa.field("identity", pa.string())).append(pa.field("counts", pa.bool_()))
"""Rows about images that are looked up: what each is about, and whether it makes that done."""


def identities(keys: pa.Array | pa.ChunkedArray, etags: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Each image's key and etag as one string."""
    # An etag is a header's value and holds no NUL, so two pairs never read the same.
    return pc.binary_join_element_wise(etags, keys, "\0")


def _newest_first(rows: pa.Table) -> pa.Table:
    """`rows` in falling order, each with its place in that; the first one of a key is the newest."""
    # A stable sort, so the rows of one shard stay in order, and turned round.
    rows = rows.sort_by([("run_id", "ascending"), ("shard", "ascending")])
    rows = rows.take(pa.array(np.arange(len(rows) - 1, -1, -1)))
    return rows.append_column("place", pa.array(np.arange(len(rows)), pa.int32()))


def _ok_first(rows: pa.Table) -> pa.Table:
    failed = pc.is_valid(rows["error"])
    return pa.concat_tables([rows.filter(pc.invert(failed)), rows.filter(failed)])


def select(
    listing: Iterable[pa.RecordBatch],
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    done: DoneIndex,
    counts: SelectionCounts,
    limit: int | None = None,
    ask: Store | None = None,
    kept: Callable[[pa.Array, pa.Array], Mask] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The objects of `listing` (batches of LISTING_SCHEMA) to work on, in its order, at most `limit`; no empty batches.

    A batch with reconfirmed images has the columns of EARLIER too, which say where their rows are. Where `listing` may
    be old, because a list of keys told the etags, `ask` is the source: of an image that is not there as it was listed
    nothing is reconfirmed. `kept` says of keys and etags which images are done besides, by another variant. `counts` is
    kept up to date on the way; what is listed after the last object that is taken is not counted.
    """
    wanted = entry_filter(include, exclude)
    for batch in _gathered(listing):
        is_image = wanted(batch)
        images = batch.filter(pa.array(is_image))
        found = done.look_up(images["key"], images["etag"])
        is_done, has_failed, again = np.zeros((3, len(batch)), bool)
        is_done[is_image], has_failed[is_image], again[is_image] = found.done, found.failed, found.overruled
        if kept is not None:
            is_done[is_image] |= kept(images["key"], images["etag"])
        if ask is not None and again.any():
            again[again] = _is_there(ask, batch.filter(pa.array(again)))
        if again.any():
            batch = _with_earlier(batch, is_image, found)
        chosen = is_image & (~is_done | again)
        left = None if limit is None else limit - counts.selected - counts.reconfirmed
        if left is not None and chosen.sum() >= left:
            end = int(np.flatnonzero(chosen)[left - 1]) + 1
            batch, is_image, is_done, has_failed, again, chosen = (
                each[:end] for each in (batch, is_image, is_done, has_failed, again, chosen)
            )
        counts.listed += len(batch)
        counts.left_out += int((~is_image).sum())
        _count_suffixes(batch["key"].filter(pa.array(~is_image)), counts.suffixes)
        counts.done += int((is_done & ~again).sum())
        counts.failed_before += int(has_failed.sum())
        counts.reconfirmed += int(again.sum())
        counts.selected += int((chosen & ~again).sum())
        counts.selected_bytes += pc.sum(batch.filter(pa.array(chosen & ~again))["size"]).as_py() or 0
        counts.unreadable += int(are_unreadable(batch["key"].filter(pa.array(chosen & ~again))).sum())
        inside = batch.filter(pa.array(chosen & ~again & are_members(batch)))
        counts.in_containers += len(inside)
        counts.bytes_in_containers += pc.sum(inside["size"]).as_py() or 0
        if chosen.any():
            yield batch.filter(pa.array(chosen))
        if counts.selected + counts.reconfirmed == limit:
            return


def _is_there(source: Store, listed: pa.RecordBatch) -> Mask:
    """Which of the `listed` objects are in `source` with the etag that was listed."""

    def etag(key: str) -> str | None:
        try:
            return source.head(key).etag
        except StorageUnavailable:
            raise
        except StorageError:
            return None

    with ThreadPoolExecutor(HEADS_AT_ONCE, "head") as threads:
        there = threads.map(etag, listed["key"].to_pylist())
        return np.array([now == then for now, then in zip(there, listed["etag"].to_pylist(), strict=True)], bool)


def _with_earlier(batch: pa.RecordBatch, is_image: Mask, found: Found) -> pa.RecordBatch:
    for field, values in zip(EARLIER, (found.earlier_run, found.earlier_shard), strict=True):
        batch = batch.append_column(
            field, pc.replace_with_mask(pa.nulls(len(batch), field.type), pa.array(is_image), values)
        )
    return batch


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
