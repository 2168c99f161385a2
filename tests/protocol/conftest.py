"""The real code in memory, for all tests of this folder."""

from pathlib import Path

import pytest

from pipeline.jobs.segment import SegmentJob
from pipeline.segmentation.prepare import check_inputs
from tests.protocol.world import in_memory


@pytest.fixture(autouse=True)
def protocol(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    photos.mkdir()
    given = check_inputs(SegmentJob(source=str(photos), output=str(labels), model=str(model_dir), allow_empty=True))
    in_memory(monkeypatch, given)
