"""The retraining flow on a real Prefect server and a real Ray: who becomes champion, who does not, and what one sees.

One registry for the whole file: a first champion, a challenger that loses, and one that wins after its training had
crashed.
"""

import base64
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import CancelledRun
from prefect.states import Cancelling

from flows import artifacts as flow_artifacts
from flows.retrain import RetrainSummary, retrain
from pipeline.errors import PipelineError
from pipeline.evaluation.files import read_evaluation
from pipeline.models.registry import Registry, open_registry
from pipeline.outputs.runs import records
from pipeline.retraining.job import BadData
from pipeline.retraining.options import RetrainJob
from pipeline.storage.store import open_store
from tests.flows.reading import first_line, last_run, log_of, runs_of, tasks_of
from tests.samples import fill
from tests.trainings import kept, kill_a_worker, options, write_scenes

pytestmark = pytest.mark.usefixtures("prefect_server", "ray_cluster")

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
STEPS = [
    "check data", "train", "score challenger", "score champion", "compare", "publish", "promote", "publish verdict",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in three splits, and three photos to label."""
    folder = tmp_path_factory.mktemp("retraining")
    write_scenes(folder / "data", train=12, val=8)
    lists = folder / "data" / "ImageSets" / "Segmentation"
    names = (lists / "val.txt").read_text().split()
    (lists / "val.txt").write_text("\n".join(names[:4]))
    (lists / "test.txt").write_text("\n".join(names[4:]))
    fill(folder / "photos", 3, size=(32, 32))
    return folder


@pytest.fixture(scope="module")
def registry(place: Path) -> Registry:
    return open_registry(str(place / "registry"))


def job(place: Path, name: str, **changes: Any) -> RetrainJob:
    train = {"steps": 40, "learning_rate": 3e-3} | changes.pop("train", {})
    contest = {"registry": str(place / "registry"), "registry_name": "squares", "eval_split": "test"}
    plan = {"validate_every": 5, "save_every": 5, "evaluation": ACTORS}
    return RetrainJob.model_validate(options(place, name=name, train=train) | contest | plan | changes)


def kill_a_worker_of(job: RetrainJob) -> None:
    """Kills the training worker of `job` once it has saved something, from another thread."""

    def watch() -> None:
        while not kept(job).checkpoint_steps():
            time.sleep(0.05)
        kill_a_worker()

    threading.Thread(target=watch, daemon=True).start()


@pytest.fixture(scope="module")
def first(place: Path, prefect_server: None, ray_cluster: None) -> RetrainSummary:
    return retrain(job(place, "first-{date}"))


def test_the_first_challenger_is_promoted_and_everything_is_shown(
    place: Path, first: RetrainSummary, registry: Registry
) -> None:
    assert (first.promoted, first.promotion, first.champion_mean_iu) == (True, 1, None)
    champion = registry.champion("squares")
    assert champion is not None
    assert (champion.version, champion.reason) == (first.version, first.reason)
    assert champion.scores is not None
    assert (champion.scores["mean_iu"], champion.scores["split"]) == (first.mean_iu, "test")

    run, artifacts = last_run("retrain")
    assert run.expected_start_time is not None
    day = f"{run.expected_start_time:%Y%m%d}"
    assert first.run.endswith(f"/runs/first-{day}")
    assert tasks_of(run) == STEPS
    assert {"progress", "data", "curves", "scores", "verdict"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert "label set" in str(artifacts["data"].data)
    assert str(artifacts["verdict"].data).splitlines()[0] == f"# Promoted: {first.reason}"
    assert "there is no champion yet" in first.reason
    assert all(name in str(artifacts["scores"].data) for name in ("ground", "red", "green", '"champion": "-"'))

    curves = str(artifacts["curves"].data)
    picture = curves.partition("data:image/svg+xml;base64,")[2].partition(")")[0]
    lines = [*ElementTree.fromstring(base64.b64decode(picture)).iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 2, "loss and validation"
    assert "| fcn8s | 40 |" in curves


@pytest.fixture(scope="module")
def lost(place: Path, first: RetrainSummary) -> RetrainSummary:
    """A challenger that has learned next to nothing."""
    return retrain(job(place, "hopeless", train={"steps": 1}))


def test_a_worse_model_is_published_but_not_promoted(
    first: RetrainSummary, lost: RetrainSummary, registry: Registry
) -> None:
    run, artifacts = last_run("retrain")
    assert (lost.promoted, lost.promotion, lost.champion_mean_iu) == (False, None, first.mean_iu)
    assert "but a gain of 0.005 is asked for" in lost.reason
    assert str(artifacts["verdict"].data).splitlines()[0] == f"# Not promoted: {lost.reason}"
    assert "promote" not in tasks_of(run)
    assert registry.find("squares", lost.version) is not None
    assert [each.version for each in registry.promotions("squares")] == [first.version]
    scores = {
        role: read_evaluation(open_store(lost.run).at(f"evaluation/{role}")) for role in ("champion", "challenger")
    }
    assert {role: record.model_id for role, record in scores.items()} == {
        "champion": first.version,
        "challenger": lost.version,
    }
    assert scores["champion"].same_examples(scores["challenger"])


@pytest.fixture(scope="module")
def better(place: Path, lost: RetrainSummary, registry: Registry) -> tuple[RetrainJob, RetrainSummary]:
    """A challenger that goes on from the champion; its first run dies with its worker, and the second goes on."""
    relabel = {"source": str(place / "photos"), "output": str(place / "labels")} | ACTORS
    longer = job(place, "longer", model="registry:squares@champion", relabel=relabel, max_failures=0)
    before = registry.promotions("squares")
    kill_a_worker_of(longer)
    with pytest.raises(PipelineError, match="the same command goes on from the newest checkpoint"):
        retrain(longer)
    run, artifacts = last_run("retrain")
    assert run.state
    assert run.state.is_failed()
    assert "training ended after its workers had failed once" in first_line(run)
    assert "verdict" not in artifacts
    assert registry.promotions("squares") == before
    return longer, retrain(longer)


def test_a_better_model_is_promoted_after_a_crash_and_relabels(
    place: Path, first: RetrainSummary, better: tuple[RetrainJob, RetrainSummary], registry: Registry
) -> None:
    longer, won = better
    retrained, _ = last_run("retrain")
    assert "resuming from the checkpoint of step" in log_of(retrained)
    assert (won.promoted, won.promotion, won.champion_mean_iu) == (True, 2, first.mean_iu)
    assert "no class falls by more than 0.05" in won.reason
    champion = registry.champion("squares")
    assert champion is not None
    assert (champion.version, champion.previous) == (won.version, first.version)
    run = kept(longer).load_run()
    assert run is not None
    assert run.start_model_id == first.version, "it started from the champion"
    assert won.relabelled is not None
    assert won.relabelled.counts.ok == 3
    (labelled,) = records(open_store(str(place / "labels")))
    assert (labelled.model_id, labelled.model.version) == (won.version, won.version)

    again = retrain(longer)
    assert (again.promoted, again.promotion, again.version) == (False, 2, won.version)
    assert "is the champion already, by promotion 2" in again.reason
    assert len(registry.promotions("squares")) == 2, "no version is promoted twice"
    assert again.relabelled is not None
    assert (again.relabelled.counts.images, again.relabelled.already_done) == (0, 3)


def test_a_cancelled_run_stops_and_promotes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    monkeypatch.setattr(flow_artifacts, "ASK_SECONDS", 0.0)
    before = {run.id for run in runs_of("retrain")}

    def cancel() -> None:
        """What the button of Prefect's pages does, as soon as the run has begun."""
        while not (mine := [run for run in runs_of("retrain") if run.id not in before and run.state.is_running()]):
            time.sleep(0.05)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(mine[0].id, Cancelling())

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(CancelledRun):
        retrain(job(tmp_path, "cancelled", eval_split=None))
    run, artifacts = last_run("retrain")
    assert run.state
    assert run.state.is_cancelled()
    assert "nothing was promoted" in first_line(run)
    assert "verdict" not in artifacts
    assert open_registry(str(tmp_path / "registry")).names() == []


def test_broken_data_fails_the_flow_with_the_first_problems_and_promotes_nothing(place: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    (tmp_path / "data" / "SegmentationClass" / "train-02.png").write_bytes(b"no mask")
    broken = job(tmp_path, "broken", eval_split=None)
    with pytest.raises(BadData):
        retrain(broken)
    run, artifacts = last_run("retrain")
    assert run.state
    assert run.state.is_failed()
    assert "masks that cannot be read (1 in split train: SegmentationClass/train-02.png" in first_line(run)
    assert tasks_of(run) == ["check data"]
    assert "problem unreadable_mask" in str(artifacts["data"].data)
    assert open_registry(str(tmp_path / "registry")).names() == []


def test_the_parameter_form_describes_every_option() -> None:
    definition = retrain.parameters.definitions["RetrainJob"]["properties"]
    assert list(definition)[:2] == ["registry_name", "eval_split"]
    assert all(option.get("description") for option in definition.values())
