"""An estimate as a job, for `fcn audit estimate` and the flow: its options, and the work from the plan to the files."""

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.audit.estimate import EstimateOptions, estimate_audit
from pipeline.audit.files import PAGE, read_audit
from pipeline.audit.gate import Gate
from pipeline.audit.overlap import refuse_overlap, seen_in_training
from pipeline.audit.page import audit_page
from pipeline.audit.results import Estimate, write_estimate
from pipeline.storage.opening import open_store
from pipeline.storage.uri import Uri


class AuditJob(BaseModel):
    """What to estimate from which annotations, and what it takes to pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audit: Uri = Field(description="The folder or URI of `fcn audit plan`.")
    annotations: Uri = Field(description="What the labelling tool exported: a folder, archive or URI.")
    estimator: Literal["regression", "difference", "sample"] = Field(
        default="regression", description="How the model's areas are used."
    )
    cluster: str | None = Field(default=None, description="Let intervals follow from folders: folder, top-folder.")
    most_void: float = Field(
        default=0.5, ge=0, le=1, description="Largest share of void pixels of a usable annotation."
    )
    trained_on: Uri | None = Field(default=None, description="Refuse images that are in this data set.")
    fail_bias: float | None = Field(
        default=None, ge=0, le=1, description="Fail when an interval excludes the model's share by more than this."
    )
    fail_width: float | None = Field(default=None, ge=0, le=1, description="Fail when an interval is wider than this.")
    seed: int = Field(default=0, description="Of the bootstrap.")

    @property
    def gate(self) -> Gate:
        return Gate(self.fail_bias, self.fail_width)


def run_audit(job: AuditJob, phase: Callable[[str], None] = lambda name: None) -> Estimate:
    """Estimate, and write the estimate, its page, and the table beside the results. The gate is the caller's to ask.

    Raises InputError for what a person must mend.
    """
    store = open_store(job.audit)
    store.check_readable()
    phase("reading the plan")
    labels = read_audit(store).labels
    if job.trained_on is not None:
        refuse_overlap(store, job.trained_on)
    options = EstimateOptions(job.estimator, job.cluster, job.most_void, job.seed)
    found = estimate_audit(store, open_store(job.annotations), options, phase)
    phase("comparing with what the model was trained on")
    seen = seen_in_training(store)
    if seen is not None:
        found = found.model_copy(update={"notes": (*found.notes, seen)})
    write_estimate(store, open_store(found.output), found)
    store.put(PAGE, audit_page(found, labels).encode())
    return found
