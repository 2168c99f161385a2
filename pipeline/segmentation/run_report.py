"""What a call of `segment` did, and whether that counts as failed though it went to its end."""

from dataclasses import dataclass

from pipeline.numbers import differing_percent
from pipeline.outputs.results import MACHINE_ERRORS
from pipeline.outputs.runs import Counts, RunRecord, RunState
from pipeline.segmentation.selection import SelectionCounts

MACHINE_ERROR_RATE = 0.1
"""A run in which a larger share of the images could not be read from their storage has failed, whatever it allows: such
images are not damaged, and would be labelled once credentials, network or storage are mended."""


@dataclass(frozen=True)
class RunReport:
    """What a call of `segment` did. `runs` is empty when there was nothing to do; a resumed run comes first."""

    state: RunState
    runs: tuple[RunRecord, ...]
    selection: SelectionCounts
    counts: Counts
    max_error_rate: float
    reports: tuple[str, ...] = ()
    """The runs' HTML reports, as keys under OUTPUT."""
    aborted: str | None = None
    """Why the job ended early, when `abort_error_rate` made it; the same call resumes it."""

    def __repr__(self) -> str:
        counts = self.counts
        return f"<RunReport {self.state}: {counts.images:,} images, {counts.ok:,} ok, {counts.failed:,} failed>"

    @property
    def failed_gate(self) -> str | None:
        """The gate: why the run counts as failed though it went to its end, or None."""
        counts = self.counts
        if self.aborted is not None:
            return self.aborted
        if counts.error_rate > self.max_error_rate:
            failed, allowed = differing_percent(counts.error_rate, self.max_error_rate)
            return f"{failed} of {counts.images} images failed, more than max_error_rate {allowed} allows"
        unread = {reason: count for reason, count in counts.errors.items() if reason in MACHINE_ERRORS}
        if sum(unread.values()) > MACHINE_ERROR_RATE * counts.images:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(unread.items()))
            return (
                f"of {counts.images} images {sum(unread.values())} could not be read from their storage ({reasons}); "
                "mend that, and the same command tries them again"
            )
        return None
