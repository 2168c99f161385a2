"""What an option of a job affects, stated where the option is defined.

The one thing to know: everything that treats options differently asks here: which belong to a job's identity, which a
report repeats in the command for the same run again, which travel to another machine under one name. A new option
needs a mark and nothing else; a test fails for one without.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from pipeline.storage.uri import refuse_secrets

What = Literal["masks", "selection", "run"]


@dataclass(frozen=True)
class Affects:
    """Metadata of an option, in its `Annotated`.

    what: "masks" changes what is predicted, so that images are segmented anew; "selection" changes which images a run
    takes, so that it is another job; "run" changes only how it is done. once: it is about one call and not repeated
    with the job. driver: it concerns the machine that drives the job, so the same job has the same name with any value.
    """

    what: What
    once: bool = False
    driver: bool = False


MASKS = Affects("masks")
SELECTION = Affects("selection")
RUN = Affects("run")
SELECTION_ONCE = Affects("selection", once=True)
RUN_ONCE = Affects("run", once=True)
DRIVER = Affects("run", driver=True)
DRIVER_ONCE = Affects("run", once=True, driver=True)


def affects(field: FieldInfo) -> Affects | None:
    """The mark of an option; None where its definition has none."""
    return next((mark for mark in field.metadata if isinstance(mark, Affects)), None)


def marked(job: type[BaseModel]) -> Iterator[tuple[str, Affects]]:
    """The options of a job that have a mark, with it, in their order."""
    for name, field in job.model_fields.items():
        mark = affects(field)
        if mark is not None:
            yield name, mark


def is_place(field: FieldInfo) -> bool:
    """Whether an option is a `pipeline.storage.uri.Uri`, with or without None."""
    return _names_a_place(field.metadata) or _holds_a_place(field.annotation)


def _holds_a_place(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return _names_a_place(metadata) or any(_holds_a_place(part) for part in get_args(annotation))


def _names_a_place(metadata: Any) -> bool:
    return any(isinstance(part, AfterValidator) and part.func is refuse_secrets for part in metadata)
