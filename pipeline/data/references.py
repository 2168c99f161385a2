"""Names of data sets that mean something else tomorrow (`DATASET@latest`, `output:URI`), and what they mean now."""

from pipeline.data.predicted.references import is_predicted, parse_predicted, resolve_predicted, variant_of
from pipeline.data.versioned import versions
from pipeline.data.versioned.references import LATEST, split_reference
from pipeline.errors import InputError, StorageError
from pipeline.storage.uri import split_options


def resolve(dataset: str) -> str:
    """The data set that is meant now, under a name that keeps its meaning; others as they are. Raises InputError."""
    try:
        return resolve_predicted(dataset) if is_predicted(dataset) else versions.resolve(dataset)
    except StorageError as error:
        raise InputError(str(error)) from error


def is_open(dataset: str) -> bool:
    """Whether a name has to be resolved."""
    if is_predicted(dataset):
        return parse_predicted(dataset).run_id is None
    return split_reference(dataset)[1] == LATEST


def is_meant(resolved: str, dataset: str) -> bool:
    """Whether `resolved` is what the open name `dataset` meant at some time."""
    if not is_predicted(dataset):
        return split_reference(resolved)[0] == split_reference(dataset)[0]
    if not is_predicted(resolved) or not _same_place(resolved, dataset):
        return False
    wanted = parse_predicted(dataset).variant
    return wanted is None or variant_of(resolved) == wanted


def _same_place(first: str, second: str) -> bool:
    places = (split_options(parse_predicted(each).place) for each in (first, second))
    return len({(place.rstrip("/"), options) for place, options in places}) == 1
