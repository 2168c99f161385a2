"""Which images are done by their rows, and have lost their masks: deleted by hand, by a lifecycle rule, in a bad copy.

Rows say what is done, and planning does not look at masks: that would be a listing of all of them for every nightly
run. So it is done where a job asks for it, with `--repair`.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow.compute as pc

from pipeline.outputs.identity import Identity, Recipe
from pipeline.outputs.marks import mark_set, marks
from pipeline.outputs.mask_formats import mask_formats
from pipeline.outputs.masks import mask_file
from pipeline.outputs.results import read_results, result_runs
from pipeline.storage.store import Store

_LISTED_AT_ONCE = 100_000
_COLUMNS = ("key", "etag", "status", "mask_key", "model_id", "params_id")


def lost_masks(output: Store, recipe: Recipe, on_file: Callable[[], None] = lambda: None) -> set[Identity]:
    """The images whose newest mask by `recipe` is not there, in whatever format it was written.

    Lists all masks of the recipe, and reads all results; `on_file` is called for each file read, and may raise to stop.
    Memory: eight bytes per mask, and the images that are found.
    """
    there = mark_set(marks(names) for names in _names(output, recipe))
    lost: set[Identity] = set()
    for run_id in result_runs(output):
        for table in read_results(output, run_id, _COLUMNS):
            on_file()
            rows = table.filter(
                pc.and_(
                    pc.equal(table["status"], "ok"),
                    pc.and_(
                        pc.equal(table["model_id"], recipe.model_id), pc.equal(table["params_id"], recipe.params_id)
                    ),
                )
            )
            found = np.isin(marks(map(mask_file, rows["mask_key"].to_pylist())), there)
            images = list(zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), strict=True))
            lost.difference_update(itertools.compress(images, found))
            lost.update(itertools.compress(images, ~found))
    return lost


def _names(output: Store, recipe: Recipe) -> Iterator[list[str]]:
    for each in mask_formats():
        keys = (info.key for info in output.list(f"{each.folder}/{recipe.name}/"))
        while chunk := list(itertools.islice(keys, _LISTED_AT_ONCE)):
            yield chunk
