"""When a run that went to its end counts as failed all the same."""

import pytest

from pipeline.outputs.runs import Counts
from pipeline.segmentation.run_report import RunReport
from pipeline.segmentation.selection import SelectionCounts


def gate(errors: dict[str, int], max_error_rate: float = 1.0) -> str | None:
    counts = Counts(images=1000, ok=1000 - sum(errors.values()), errors=errors)
    return RunReport("finished", (), SelectionCounts(), counts, max_error_rate).failed_gate


def test_a_run_of_which_a_tenth_could_not_be_read_from_its_storage_does_not_end_quietly() -> None:
    assert gate({"access_denied": 60, "storage": 40}) is None
    assert gate({"access_denied": 61, "storage": 40}) == (
        "of 1000 images 101 could not be read from their storage (access_denied 61, storage 40); mend that, and the "
        "same command tries them again"
    )


@pytest.mark.parametrize("reason", ["truncated", "missing", "changed", "not_an_image"])
def test_other_errors_fail_a_run_only_beyond_what_it_allows(reason: str) -> None:
    assert gate({reason: 1000}) is None
    failed = gate({reason: 31}, 0.03)
    assert failed == "3.1 % of 1000 images failed, more than max_error_rate 3.0 % allows"
