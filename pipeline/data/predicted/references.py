"""`output:URI`, `output:URI@VARIANT` and `output:URI@RUN`: which predictions of an output are meant.

The one thing to know: a run names what never changes, all that its variant had committed when it was finished. So the
first two are resolved to a run once, where work begins.
"""

import re
from dataclasses import dataclass

from pipeline.errors import InputError, ObjectMissing
from pipeline.outputs import runs
from pipeline.outputs.current import choose_variant, current_variants
from pipeline.outputs.runs import RunRecord
from pipeline.sources.opening import open_source
from pipeline.storage.store import Store
from pipeline.storage.uri import OUTPUT_PREFIX, is_uri, split_options, split_prefix

_WHICH = re.compile(r"(?P<place>.+)@(?:(?P<variant>[0-9a-f]{8})|(?P<run>\d{8}T\d{6}Z-[0-9a-f]{4}))", re.DOTALL)


@dataclass(frozen=True)
class PredictedReference:
    """place: of the output, as `open_store` takes it. run_id or variant: what was written after "@", if anything."""

    place: str
    variant: str | None = None
    run_id: str | None = None


def is_predicted(dataset: str) -> bool:
    """Whether a data set is named as an output."""
    return split_prefix(dataset)[0] == OUTPUT_PREFIX


def parse_predicted(dataset: str) -> PredictedReference:
    """What an `output:...` names."""
    place, options = split_options(split_prefix(dataset)[1])
    match = _WHICH.fullmatch(place)
    if match is None:
        return PredictedReference(place + options)
    return PredictedReference(match["place"] + options, match["variant"], match["run"])


def resolve_predicted(dataset: str) -> str:
    """`output:URI` or `output:URI@VARIANT` with the run that it means now: the newest finished one of the variant, by
    default the output's newest. Raises InputError where there is none."""
    reference = parse_predicted(dataset)
    if reference.run_id is not None:
        return dataset
    store = open_source(reference.place)
    store.check_readable()
    several = current_variants(store) if reference.variant is None else ()
    if len(several) > 1:
        raise InputError(
            f"the newest run under {store.uri} redid only some images, so masks there are of variants "
            f"{', '.join(several)}; name one, as in {OUTPUT_PREFIX}{reference.place}@{several[-1]}"
        )
    variant = choose_variant(store, reference.variant).recipe
    finished = (run for run in runs.records(store) if run.recipe == variant and run.state == "finished")
    newest = next(finished, None)
    if newest is None:
        raise InputError(
            f"no run of variant {variant} under {store.uri} is finished, so what it has predicted still changes; run "
            "the same `fcn segment` again"
        )
    return of_run(reference.place, newest.run_id)


def of_run(place: str, run_id: str) -> str:
    """The reference to a run of the output at a place."""
    bare, options = split_options(place)
    # "s3://labels@..." would be taken for a user's name.
    is_bucket = is_uri(bare) and "/" not in bare.partition("://")[2]
    return f"{OUTPUT_PREFIX}{bare}{'/' if is_bucket else ''}@{run_id}{options}"


def variant_of(dataset: str) -> str | None:
    """The variant that a reference names, itself or by its run; None where it names neither."""
    reference = parse_predicted(dataset)
    if reference.run_id is None:
        return reference.variant
    return finished_run(open_source(reference.place), reference.run_id).recipe


def finished_run(output: Store, run_id: str) -> RunRecord:
    """The record of a run. Raises InputError for one that is not there, or not finished."""
    try:
        record = runs.read_record(output, run_id)
    except ObjectMissing:
        raise InputError(f"there is no run {run_id} under {output.uri}; see `fcn runs`") from None
    except runs.DamagedRecord as error:
        raise InputError(str(error)) from error
    if record.state != "finished":
        raise InputError(
            f"run {run_id} under {output.uri} is {record.state}, so what it has predicted still changes; run the same "
            "`fcn segment` again"
        )
    return record
