"""What a distillation is begun as: with the same name, nothing goes on with other masks than were asked for."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.distillation.records import begin
from pipeline.errors import InputError
from pipeline.jobs.distil import DistilJob
from pipeline.storage.opening import open_store


def job(**teaching: Any) -> DistilJob:
    return DistilJob.model_validate(
        {"name": "a", "teacher": "t", "source": "s", "output": "o", "registry_name": "r", "teaching": teaching}
    )


@pytest.mark.parametrize(
    ("teaching", "message"),
    [({"void_below": 0.9}, "void_below was 0.5 and is 0.9"), ({"max_side": 64}, "max_side was None and is 64")],
)
def test_other_masks_are_another_distillation(tmp_path: Path, teaching: dict[str, Any], message: str) -> None:
    store = open_store(str(tmp_path))
    begin(store, job(), "s", "t")
    begin(store, job(actors=3), "s", "t")
    with pytest.raises(InputError, match=message):
        begin(store, job(**teaching), "s", "t")
