"""Which classes the masks of a run hold, in names and colours, from the output alone: the model may be long gone."""

import io

import pyarrow as pa
from PIL import Image

from fcn_core import LabelSet
from fcn_core.labels import UNREADABLE, VOID
from fcn_core.text.printable import printable
from pipeline.errors import InputError, ObjectMissing
from pipeline.outputs.masks import read_mask
from pipeline.outputs.results import read_class_totals, read_results
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store


def read_labels(store: Store, record: RunRecord) -> LabelSet:
    """The label set of a run: names from its tables, colours from one of its masks.

    A run that is not finished has no class totals yet: classes that have not appeared are then called "class 7".
    Raises InputError when the run has no mask at all.
    """
    names: dict[int, str] = {}
    try:
        names = {total.class_id: total.class_name for total in read_class_totals(store, record.run_id)}
        complete = True
    except ObjectMissing:
        complete = False
    palette: list[int] | None = None
    for table in read_results(store, record.run_id, ["mask_key", "areas"]):
        if not complete:
            names |= _names(table)
        if palette is None:
            palette = _palette(store, table)
        if complete and palette is not None:
            break
    names.pop(VOID, None)
    if palette is None or not names:
        raise InputError(f"run {record.run_id} under {store.uri} has no masks; choose another run")
    # Runs of 0.1 may have names that are refused today.
    full = [printable(names.get(index, f"class {index}")) for index in range(max(names) + 1)]
    colors = tuple((palette[3 * k], palette[3 * k + 1], palette[3 * k + 2]) for k in range(len(full)))
    return LabelSet(name=record.recipe, names=tuple(full), palette=colors)


def _names(table: pa.Table) -> dict[int, str]:
    areas = table["areas"].combine_chunks().flatten()
    return dict(zip(areas.field("class_id").to_pylist(), areas.field("class_name").to_pylist(), strict=True))


def _palette(store: Store, table: pa.Table) -> list[int] | None:
    for key in table["mask_key"].to_pylist():
        if key is None:
            continue
        try:
            with Image.open(io.BytesIO(read_mask(store, key)), formats=["PNG"]) as image:
                palette = image.getpalette()
        except (ObjectMissing, *UNREADABLE):
            continue  # a mask that somebody deleted; another will do
        if palette is not None:
            return [*palette, *[0] * (768 - len(palette))]
    return None
