"""The evaluation flow on a real Prefect server: it scores, shows what came out, and names what is broken.

The work of actors is done in this process, for they take seconds to start: the retraining of test_deployments.py scores
on real ones.
"""

from pathlib import Path

import pytest

from flows.evaluate import evaluate
from pipeline.evaluation.files import read_evaluation
from pipeline.evaluation.job import BrokenExamples
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.storage.opening import open_store
from tests.flows.reading import first_line, last_run, tasks_of
from tests.in_process import evaluate_in_process
from tests.labelled import write_labelled

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_in_process(monkeypatch)


@pytest.fixture
def job(tmp_path: Path, model_dir: Path) -> EvaluateJob:
    write_labelled(tmp_path / "data", 6)
    return EvaluateJob(
        model=str(model_dir), dataset=str(tmp_path / "data"), labels="camvid", output=str(tmp_path / "scores"),
        device="cpu", actors=1, cpus_per_actor=1,
    )  # fmt: skip


@pytest.mark.slow
def test_the_flow_scores_a_model_and_shows_it(job: EvaluateJob) -> None:
    summary = evaluate(job)
    assert (summary.examples, summary.errors, summary.output) == (6, 0, job.output)
    assert summary.scores == read_evaluation(open_store(str(job.output))).scores
    run, artifacts = last_run("evaluate")
    assert tasks_of(run) == ["score", "publish"]
    assert {"progress", "scores", "summary"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert f"Mean IoU {summary.scores.mean_iou:.4f}" in str(artifacts["summary"].data).splitlines()[0]
    assert "sky" in str(artifacts["scores"].data)


def test_broken_examples_fail_the_flow_and_are_listed(job: EvaluateJob) -> None:
    (Path(job.dataset) / "JPEGImages" / "003.jpg").write_bytes(b"no image")
    with pytest.raises(BrokenExamples, match=r"003 \(not_an_image\)"):
        evaluate(job)
    run, artifacts = last_run("evaluate")
    assert run.state
    assert run.state.is_failed()
    assert "1 of 6 examples of split 'val' cannot be scored: 003 (not_an_image)" in first_line(run)
    assert '"example": "003", "reason": "not_an_image"' in str(artifacts["errors"].data)
    assert not (Path(str(job.output)) / "scores.json").exists()


def test_broken_examples_that_are_allowed_are_listed_too(job: EvaluateJob) -> None:
    (Path(job.dataset) / "JPEGImages" / "003.jpg").write_bytes(b"no image")
    summary = evaluate(job.model_copy(update={"allow_errors": True}))
    assert (summary.examples, summary.errors) == (5, 1)
    _, artifacts = last_run("evaluate")
    assert '"example": "003", "reason": "not_an_image"' in str(artifacts["errors"].data)
    assert "- left out, because they are broken: 1" in str(artifacts["summary"].data).splitlines()


def test_the_parameter_form_describes_every_option() -> None:
    definition = evaluate.parameters.definitions["EvaluateJob"]["properties"]
    assert list(definition)[:3] == ["dataset", "output", "model"]
    assert all(option.get("description") for option in definition.values())
