"""The classes of all masks that an export may have."""

from collections.abc import Sequence

from fcn_core import LabelSet
from pipeline.errors import InputError
from pipeline.outputs import runs
from pipeline.outputs.labels import read_labels
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store


def read_classes(output: Store, variants: Sequence[str]) -> LabelSet:
    """The label set of these variants, of which each may lie over the ones behind it.

    Raises InputError where two of them have other classes, or there is no mask at all.
    """
    found = [labels for variant in variants if (labels := _of_variant(output, variant)) is not None]
    if not found:
        raise InputError(f"there are no masks of recipe {' or '.join(variants)} under {output.uri}; see `fcn runs`")
    most = max(found, key=lambda labels: labels.num_classes)
    for labels in found:
        for index, (one, other) in enumerate(zip(labels.names, most.names, strict=False)):
            unknown = f"class {index}"  # what a run that is not finished cannot tell
            if one != other and unknown not in (one, other):
                raise InputError(
                    f"masks under {output.uri} are of recipes {', '.join(variants)}, in which class {index} is {one!r} "
                    f"and {other!r}; choose one with --recipe"
                )
    return most


def _of_variant(output: Store, variant: str) -> LabelSet | None:
    """By a finished run if there is one, else the one that has seen most classes."""
    records = [record for record in runs.records(output) if record.recipe == variant]
    for record in records:
        if record.state == "finished" and (labels := _of_run(output, record)) is not None:
            return labels
    found = [labels for record in records if (labels := _of_run(output, record)) is not None]
    return max(found, key=lambda labels: labels.num_classes, default=None)


def _of_run(output: Store, record: RunRecord) -> LabelSet | None:
    try:
        return read_labels(output, record)
    except InputError:
        return None
