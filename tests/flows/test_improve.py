"""The loop as two flows on a real Prefect server: tasks for people, and from their annotations to a new champion.

Nothing runs in between but a person, who corrects every mask in the tasks' folder. Trainings run on a real Ray; the
work of the actors that segment and score is done in this process, as in test_retrain.py.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_core import Architecture, ModelBundle
from fcn_core.labels import decode_mask, encode_mask
from flows.improve import ChooseSummary, LearnSummary, choose, learn
from pipeline.actors import shard_runner
from pipeline.data.versioned.adding import import_dataset
from pipeline.data.versioned.versions import open_version
from pipeline.errors import InputError
from pipeline.jobs.choose import ChooseJob
from pipeline.jobs.importing import AddOptions, ImportOptions
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob
from pipeline.models.registry import Registry, open_registry
from pipeline.outputs.current import read_current
from pipeline.segmentation import job as segmentation
from pipeline.storage.opening import open_store
from tests.flows.reading import first_line, last_run, tasks_of
from tests.in_process import InProcess
from tests.samples import encode
from tests.trainings import LABELS, options, write_scenes

pytestmark = [pytest.mark.usefixtures("prefect_server", "ray_cluster"), pytest.mark.timeout(900), pytest.mark.slow]

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
NEW = 6
UNLEARNED = Architecture(num_classes=3, width=0.125, head_width=16)


@dataclass(frozen=True)
class Place:
    """A data set of one version, a registry with a champion that knows nothing, and an output that it segmented."""

    folder: Path
    registry: Registry
    champion: str

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def job(self, **changes: Any) -> RetrainJob:
        contest = {"registry": self.registry.uri, "registry_name": "squares", "evaluation": ACTORS}
        relabel = {"source": self.path("photos"), "output": self.path("labels"), "where": "confidence < 2"} | ACTORS
        plan = {"dataset": self.path("set"), "model": "registry:squares@champion", "relabel": relabel}
        train = {"steps": 40, "learning_rate": 3e-3}
        return RetrainJob.model_validate(options(self.folder, train=train) | contest | plan | changes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("loop")
    write_scenes(folder / "scenes", train=8, val=4)
    (folder / "photos").mkdir()
    for number in range(NEW):
        mirrored = np.asarray(Image.open(folder / "scenes" / "JPEGImages" / f"train-{number:02d}.jpg"))[:, ::-1]
        (folder / "photos" / f"new-{number}.png").write_bytes(encode(Image.fromarray(mirrored), "PNG"))
    (folder / "labels.json").write_text(LABELS.model_dump_json())
    for split in ("train", "val"):
        _as_pairs(folder, split)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_runner, "ShardPool", InProcess)
        imported = import_dataset(
            str(folder / "pairs"), str(folder / "set"), ImportOptions(labels=str(folder / "labels.json"))
        )
        assert imported.version == 1
        assert set(imported.splits) == {"train", "val"}
        registry = open_registry(str(folder / "registry"))
        champion = registry.publish("squares", ModelBundle.new(UNLEARNED, LABELS))
        registry.promote("squares", champion, "the first")
        segmentation.segment(
            SegmentJob(
                source=str(folder / "photos"),
                output=str(folder / "labels"),
                model="registry:squares@champion",
                registry=registry.uri,
                no_report=True,
                **ACTORS,
            )
        )
        yield Place(folder, registry, champion)


def _as_pairs(folder: Path, split: str) -> None:
    """The scenes of a split as a folder of images and one of masks."""
    scenes, pairs = folder / "scenes", folder / "pairs"
    for name in (scenes / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
        for kind, there, suffix in (("images", "JPEGImages", "jpg"), ("masks", "SegmentationClass", "png")):
            (pairs / split / kind).mkdir(parents=True, exist_ok=True)
            (pairs / split / kind / f"{name}.{suffix}").write_bytes((scenes / there / f"{name}.{suffix}").read_bytes())
    (pairs / "labels.json").write_text(LABELS.model_dump_json())


@pytest.fixture(scope="module")
def chosen(place: Place) -> ChooseSummary:
    job = {"output": place.path("labels"), "tasks": place.path("tasks-{date}"), "top": 4, "format": "cvat"}
    return choose(ChooseJob.model_validate(job | {"without": place.path("set") + "@latest"}))


def test_tasks_for_people_are_written_where_the_date_says(place: Place, chosen: ChooseSummary) -> None:
    run, artifacts = last_run("choose")
    assert tasks_of(run) == ["choose", "publish"]
    assert chosen.images == 4
    assert run.expected_start_time is not None
    assert chosen.tasks == place.path(f"tasks-{run.expected_start_time:%Y%m%d}")
    assert len(list(open_store(chosen.tasks).list("SegmentationClass/"))) == 4
    assert len(json.loads(str(artifacts["chosen"].data))) == 4
    assert "4 images to annotate" in str(artifacts["tasks"].data)


def test_tasks_that_people_may_be_at_work_on_are_left_alone(place: Place, chosen: ChooseSummary) -> None:
    job = ChooseJob(output=place.path("labels"), tasks=chosen.tasks, top=2, format="cvat")
    with pytest.raises(InputError, match="people may be at work"):
        choose(job)
    assert len(list(open_store(chosen.tasks).list("SegmentationClass/"))) == 4


def correct(place: Place, tasks: str) -> None:
    """What a person does who knows the scenes: new-3.png is train-03 in a mirror."""
    for mask in (Path(tasks) / "SegmentationClass").iterdir():
        number = int(mask.stem.split("-")[1])
        truth = decode_mask((place.folder / "scenes" / "SegmentationClass" / f"train-{number:02d}.png").read_bytes())
        mask.write_bytes(encode_mask(np.ascontiguousarray(truth[:, ::-1]), LABELS))


@pytest.fixture(scope="module")
def learned(place: Place, chosen: ChooseSummary) -> LearnSummary:
    """Days later: the annotations are there."""
    correct(place, chosen.tasks)
    return learn(chosen.tasks, place.job(), AddOptions(group="none", val_share=0.25))


def test_annotations_become_a_version_that_the_new_champion_has_learnt(place: Place, learned: LearnSummary) -> None:
    run, artifacts = last_run("learn")
    assert tasks_of(run) == ["add annotations", "publish annotations", "retrain"], "the retraining is a flow of its own"
    assert (learned.added, learned.corrected) == (4, 0)
    assert learned.dataset == place.path("set") + "@2"
    assert len(open_version(learned.dataset)[1].rows) == 16
    assert "4 new" in str(artifacts["annotations"].data)
    assert learned.retrained.promoted
    champion = place.registry.champion("squares")
    assert champion is not None
    assert champion.version == learned.retrained.version != place.champion


def test_the_new_champion_redoes_what_fits_where(place: Place, learned: LearnSummary) -> None:
    assert learned.retrained.relabelled is not None
    assert learned.retrained.relabelled.counts.ok == NEW
    rows = read_current(open_store(place.path("labels")), ["status"]).to_pylist()
    assert {row["model_id"] for row in rows} == {learned.retrained.version}


def test_the_same_again_makes_no_version_and_promotes_nothing(
    place: Place, chosen: ChooseSummary, learned: LearnSummary
) -> None:
    again = learn(chosen.tasks, place.job(), AddOptions(group="none", val_share=0.25))
    assert (again.dataset, again.added, again.corrected) == (learned.dataset, 0, 0)
    assert len(place.registry.promotions("squares")) == 2


def test_annotations_of_which_none_can_be_used_change_nothing(place: Place, learned: LearnSummary) -> None:
    store = open_store(place.path("unusable"))
    store.put("labels.json", LABELS.model_dump_json().encode())
    store.put("images/a.jpg", b"no image")
    store.put("masks/a.png", encode_mask(np.zeros((8, 8), np.uint8), LABELS))
    with pytest.raises(InputError, match="none of the annotations"):
        learn(store.uri, place.job())
    run, artifacts = last_run("learn")
    assert "none of the annotations" in first_line(run)
    assert "left out" in str(artifacts["annotations"].data)
    assert open_version(place.path("set") + "@latest")[1].number == 2


def test_a_data_set_is_named_without_a_version(place: Place) -> None:
    with pytest.raises(InputError, match="name it without @1"):
        learn(place.path("tasks"), place.job(dataset=place.path("set") + "@1"))
