"""The distillation flow on a real Prefect server: its steps are tasks, and its scores are what one sees.

The work of actors and training workers is done in this process, for they take seconds to start.
"""

from pathlib import Path

import pytest

from flows.distil import distil
from pipeline.jobs.distil import DistilJob
from pipeline.models.registry import open_registry
from pipeline.training import job as training
from tests.flows.reading import last_run, tasks_of
from tests.in_process import evaluate_in_process, segment_in_process
from tests.samples import fill, model
from tests.trainings import LABELS, InProcess, write_scenes

pytestmark = [pytest.mark.usefixtures("prefect_server", "ray_cluster"), pytest.mark.timeout(900), pytest.mark.slow]

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1, "precision": "float32"}


def test_the_flow_distils_and_shows_scores_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Group", InProcess)
    evaluate_in_process(monkeypatch)
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 12, size=(64, 48))
    model(LABELS).save(tmp_path / "teacher")
    write_scenes(tmp_path / "data", train=2, val=2)
    (tmp_path / "registry").mkdir()
    student = {
        "arch": "fcn32s", "width": 0.125, "head_width": 16, "cpus_per_worker": 1, "use_gpu": False,
        "train": {"steps": 2, "batch_size": 2, "augmentation": {"crop_height": 32, "crop_width": 32}},
    }  # fmt: skip
    job = DistilJob.model_validate(
        {
            "name": "small", "teacher": f"{tmp_path}/teacher", "source": f"{tmp_path}/photos",
            "output": f"{tmp_path}/distilled", "registry": f"{tmp_path}/registry", "registry_name": "student",
            "sample": 10, "teaching": ACTORS, "evaluation": ACTORS, "predicted": {"val_share": 0.3},
            "student": student, "truth": {"dataset": f"{tmp_path}/data"},
        }
    )  # fmt: skip
    summary = distil(job)
    run, artifacts = last_run("distil")
    assert run.state is not None
    assert run.state.is_completed()
    assert tasks_of(run) == [
        "check", "sample", "segment sample", "train student", "score", "publish", "publish scores",
    ]  # fmt: skip
    assert summary.segmented == 10
    (version,) = open_registry(f"{tmp_path}/registry").versions("student")
    assert summary.versions == (version.version,)
    assert summary.agreement is not None
    assert summary.teacher_mean_iou is not None
    assert f"registry:student@{version.version}" in str(artifacts["student"].data)
    rows = str(artifacts["scores"].data)
    assert "truth" in rows
    assert "student" in rows
