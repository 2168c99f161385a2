"""The retraining flow on a real Prefect server and a real Ray: who becomes champion, who does not, and what one sees.

One challenger for the whole file, against a champion that knows nothing: its run is cancelled before it trains, dies in
its training, loses because too large a gain is asked for, and wins. Trainings run on a real Ray; the work of the actors
that score and label is done in this process, for they take seconds to start: test_deployments.py has real ones.
"""

import base64
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import boto3
import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run
from prefect.states import Cancelling

import flows.artifacts
import flows.retrain
from fcn_core import Architecture, ModelBundle
from flows.retrain import RetrainSummary, retrain
from pipeline.actors import shard_runner
from pipeline.data.datasets import open_dataset
from pipeline.data.report import DataReport
from pipeline.errors import PipelineError
from pipeline.evaluation.files import read_evaluation
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.retrain import RetrainJob
from pipeline.models.registry import Registry, open_registry
from pipeline.outputs.runs import records
from pipeline.retraining.job import BadData
from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3
from tests.flows.reading import first_line, last_run, log_of, tasks_of
from tests.in_process import InProcess
from tests.prefect_site import PrefectServer
from tests.samples import fill
from tests.trainings import kept, kill_a_worker, options, write_scenes

pytestmark = [pytest.mark.usefixtures("prefect_server", "ray_cluster"), pytest.mark.timeout(900), pytest.mark.slow]

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
STEPS = [
    "check data", "train", "score challenger", "score champion", "compare", "publish", "promote", "publish verdict",
]  # fmt: skip
UNLEARNED = Architecture(num_classes=3, width=0.125, head_width=16)

Ended = tuple[FlowRun, dict[str, Artifact]]


@dataclass(frozen=True)
class Place:
    """A folder for what is written, the data in S3, which can be kept waiting, and a registry with a champion."""

    folder: Path
    storage: FaultyS3
    data: str
    registry: Registry
    champion: str

    def job(self, **changes: Any) -> RetrainJob:
        train = {"steps": 40, "learning_rate": 3e-3}
        contest = {"registry": self.registry.uri, "registry_name": "squares", "eval_split": "test"}
        # Without a cache each validation reads its examples from S3.
        data = {"dataset": self.data, "cache_bytes": 0, "model": "registry:squares@champion"}
        plan = {"validate_every": 10, "save_every": 10, "max_failures": 0, "evaluation": ACTORS}
        return RetrainJob.model_validate(options(self.folder, train=train) | contest | data | plan | changes)


@pytest.fixture(scope="module")
def place(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Scenes in three splits, three photos to label, and a champion that was never trained."""
    folder = tmp_path_factory.mktemp("retraining")
    bucket = f"retraining-{os.urandom(8).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    write_scenes(f"s3://{bucket}/data", train=8, val=4)
    lists = open_store(f"s3://{bucket}/data/ImageSets/Segmentation")
    names = lists.get("val.txt").decode().split()
    for split, listed in (("val", names[:2]), ("test", names[2:])):
        lists.put(f"{split}.txt", "\n".join(listed).encode())
    fill(folder / "photos", 3, size=(32, 32))
    registry = open_registry(str(folder / "registry"))
    labels = open_dataset(DatasetOptions(dataset=f"s3://{bucket}/data"), "train").labels
    champion = registry.publish("squares", ModelBundle.new(UNLEARNED, labels))
    registry.promote("squares", champion, "the first")
    with FaultyS3(s3_endpoint) as storage, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_runner, "ShardPool", InProcess)
        data = f"s3://{bucket}/data?endpoint_url={storage.endpoint}"
        yield Place(folder, storage, data, registry, champion)


def after_check(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have the flow do something else as soon as it has shown what it found of the data."""
    checked = flows.retrain._FlowObserver.checked

    def also(observer: flows.retrain._FlowObserver, report: DataReport) -> None:
        checked(observer, report)
        act()

    patch.setattr(flows.retrain._FlowObserver, "checked", also)


@pytest.fixture(scope="module")
def cancelled(place: Place, ray_cluster: None, prefect_server: object) -> Ended:
    """A run that somebody cancels, as by the button of Prefect's pages, when the data is checked."""

    def cancel() -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(str(flow_run.id)), Cancelling())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.artifacts, "ASK_SECONDS", 0.0)
        after_check(patch, cancel)
        with pytest.raises(CancelledRun):
            retrain(place.job())
    return last_run("retrain")


def test_a_cancelled_run_stops_and_promotes_nothing(cancelled: Ended) -> None:
    run, artifacts = cancelled
    assert run.state
    assert run.state.is_cancelled()
    assert "nothing was promoted" in first_line(run)
    assert "verdict" not in artifacts


@pytest.fixture(scope="module")
def crashed(place: Place, cancelled: Ended) -> Ended:
    """The next run of the same: its training's worker dies after the first checkpoint, waiting for its validation."""

    def kill() -> None:
        while not kept(place.job()).checkpoint_steps():
            time.sleep(0.05)
        kill_a_worker()

    def wait_and_die() -> None:
        place.storage.hold(lambda method, path: method == "GET" and "/JPEGImages/val-" in path)
        threading.Thread(target=kill, daemon=True).start()

    with pytest.MonkeyPatch.context() as patch:
        after_check(patch, wait_and_die)
        with pytest.raises(PipelineError, match="the same command goes on from the newest checkpoint"):
            retrain(place.job())
    place.storage.release()
    return last_run("retrain")


def test_a_crash_fails_the_flow_with_the_reason_first_and_promotes_nothing(crashed: Ended) -> None:
    run, artifacts = crashed
    assert run.state
    assert run.state.is_failed()
    assert "training ended after its workers had failed once" in first_line(run)
    assert "verdict" not in artifacts


@dataclass(frozen=True)
class Judged:
    summary: RetrainSummary
    run: FlowRun
    artifacts: dict[str, Artifact]
    promoted: list[str]
    """The versions that were promoted by then."""


def judged(place: Place, job: RetrainJob) -> Judged:
    summary = retrain(job)
    return Judged(summary, *last_run("retrain"), [each.version for each in place.registry.promotions("squares")])


@pytest.fixture(scope="module")
def lost(place: Place, crashed: Ended) -> Judged:
    """The next run, that of a job which asks for a larger gain than there can be."""
    return judged(place, place.job(margin=1.0))


def test_the_next_run_goes_on_from_the_checkpoint(lost: Judged) -> None:
    assert "resuming from the checkpoint of step" in log_of(lost.run)


def test_a_model_that_is_not_better_enough_is_published_but_not_promoted(place: Place, lost: Judged) -> None:
    summary = lost.summary
    assert (summary.promoted, summary.promotion) == (False, None)
    assert "but a gain of 1 is asked for" in summary.reason
    assert str(lost.artifacts["verdict"].data).splitlines()[0] == f"# Not promoted: {summary.reason}"
    assert "promote" not in tasks_of(lost.run)
    assert place.registry.find("squares", summary.version) is not None
    assert lost.promoted == [place.champion], "neither by this run nor by those that were cancelled or had crashed"
    scores = {
        role: read_evaluation(open_store(summary.run).at(f"evaluation/{role}")) for role in ("champion", "challenger")
    }
    assert {role: record.model_id for role, record in scores.items()} == {
        "champion": place.champion,
        "challenger": summary.version,
    }
    assert scores["champion"].same_examples(scores["challenger"])


@pytest.fixture(scope="module")
def won(place: Place, lost: Judged) -> Judged:
    """The last run: a usual gain will do, and the new champion labels."""
    relabel = {"source": str(place.folder / "photos"), "output": str(place.folder / "labels")} | ACTORS
    return judged(place, place.job(relabel=relabel))


def test_a_better_model_is_promoted_and_everything_is_shown(place: Place, lost: Judged, won: Judged) -> None:
    summary, artifacts = won.summary, won.artifacts
    assert (summary.promoted, summary.promotion) == (True, 2)
    assert summary.version == lost.summary.version, "nothing was trained again"
    assert summary.mean_iou is not None
    assert summary.champion_mean_iou is not None
    assert summary.mean_iou > summary.champion_mean_iou
    champion = place.registry.champion("squares")
    assert champion is not None
    assert (champion.version, champion.previous, champion.reason) == (summary.version, place.champion, summary.reason)
    assert champion.scores is not None
    assert (champion.scores["mean_iou"], champion.scores["split"]) == (summary.mean_iou, "test")

    trained = kept(place.job()).load_run()
    assert trained is not None
    assert trained.start_model_id == place.champion, "it started from the champion"

    assert tasks_of(won.run) == [*STEPS, "segment"], "the relabelling is a flow of its own"
    assert {"progress", "data", "curves", "scores", "verdict"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert "label set" in str(artifacts["data"].data)
    assert str(artifacts["verdict"].data).splitlines()[0] == f"# Promoted: {summary.reason}"
    assert all(name in str(artifacts["scores"].data) for name in ("ground", "red", "green"))

    curves = str(artifacts["curves"].data)
    picture = curves.partition("data:image/svg+xml;base64,")[2].partition(")")[0]
    lines = [*ElementTree.fromstring(base64.b64decode(picture)).iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 2, "loss and validation"
    assert "| fcn8s | 40 |" in curves


def test_the_promotion_is_an_event_that_automations_hear(
    place: Place, won: Judged, prefect_server: PrefectServer
) -> None:
    wanted = {"filter": {"event": {"name": ["fcn.champion.promoted"]}}, "limit": 50}
    deadline = time.monotonic() + 60
    while not (
        found := [
            event["payload"]
            for event in httpx.post(f"{prefect_server.api}/events/filter", json=wanted).json()["events"]
            if event["payload"]["flow_run_id"] == str(won.run.id)
        ]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (payload,) = found
    assert (payload["name"], payload["version"], payload["promotion"]) == ("squares", won.summary.version, 2)
    assert (payload["previous"], payload["reason"]) == (place.champion, won.summary.reason)


def test_a_new_champion_relabels(place: Place, won: Judged) -> None:
    assert won.summary.relabelled is not None
    assert (won.summary.relabelled.counts.ok, won.summary.relabelled.already_done) == (3, 0)
    (record,) = records(open_store(str(place.folder / "labels")))
    assert record.model is not None
    assert (record.model_id, record.model.version) == (won.summary.version, won.summary.version)


def test_broken_data_fails_the_flow_with_the_first_problems_and_promotes_nothing(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    (tmp_path / "data" / "SegmentationClass" / "train-02.png").write_bytes(b"no mask")
    contest = {"registry": str(tmp_path / "registry"), "registry_name": "squares", "evaluation": ACTORS}
    with pytest.raises(BadData):
        retrain(RetrainJob.model_validate(options(tmp_path) | contest))
    run, artifacts = last_run("retrain")
    assert run.state
    assert run.state.is_failed()
    assert "masks that cannot be read (1 in split train: SegmentationClass/train-02.png" in first_line(run)
    assert tasks_of(run) == ["check data"]
    assert "problem unreadable_mask" in str(artifacts["data"].data)
    assert open_registry(str(tmp_path / "registry")).names() == []


def test_the_parameter_form_describes_every_option() -> None:
    definition = retrain.parameters.definitions["RetrainJob"]["properties"]
    assert list(definition)[:4] == ["dataset", "output", "name", "registry_name"]
    assert all(option.get("description") for option in definition.values())
