"""What a run is begun with, and that it is only continued as it was begun."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fcn_core import Architecture, ModelBundle, WeightsError, preset
from fcn_core.normalization import CAFFE, IMAGENET
from pipeline.data.versioned.adding import add_to_dataset, import_dataset
from pipeline.errors import InputError
from pipeline.jobs.importing import AddOptions, ImportOptions
from pipeline.training.plan import check_inputs, check_same, new_run, next_start, pin_dataset
from pipeline.training.records import TrainRun
from tests.commands import refused
from tests.pipeline.data.annotations.sources import write
from tests.pipeline.data.test_versions import export
from tests.trainings import LABELS, job, kept, write_scenes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    write_scenes(folder / "data")
    return folder


def bundle(arch: str = "fcn8s", labels: Any = LABELS, **changes: Any) -> ModelBundle:
    values = {"arch": arch, "num_classes": labels.num_classes, "width": 0.125, "head_width": 16} | changes
    return ModelBundle.new(Architecture.model_validate(values), labels, seed=7)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    bundle().save(folder)
    return folder


def begin(place: Path, **changes: Any) -> tuple[Any, ModelBundle]:
    asked = job(place, **{"width": None, "head_width": None, "arch": None} | changes)
    return new_run(asked, check_inputs(asked))


def test_without_a_model_the_network_is_new_and_follows_the_seed(place: Path) -> None:
    small = {"width": 0.125, "head_width": 16}
    run, start = begin(place, **small)
    assert start.architecture.arch == "fcn8s"
    assert start.labels.names == LABELS.names
    assert begin(place, **small)[1].model_id == start.model_id
    assert begin(place, **small, train={"seed": 1})[1].model_id != start.model_id
    assert run.start_model_id == start.model_id


def test_a_padded_network_begins_with_the_authors_input(place: Path) -> None:
    assert begin(place, arch="fcn32s_padded", width=0.125, head_width=16)[1].normalization == CAFFE


def test_a_bundle_is_gone_on_from_as_it_is(place: Path, saved: Path) -> None:
    run, start = begin(place, model=str(saved))
    assert start.state["fc6.weight"].equal(bundle().state["fc6.weight"])
    assert run.plan.architecture.head_width == 16
    assert str(saved) in run.start_notes[0]


def test_dropout_can_be_changed_on_the_way(place: Path, saved: Path) -> None:
    _, start = begin(place, model=str(saved), dropout=0.1)
    assert start.architecture.dropout == 0.1
    assert start.state["fc6.weight"].equal(bundle().state["fc6.weight"])


def test_a_bundle_of_a_coarser_network_is_transplanted(place: Path, tmp_path: Path) -> None:
    coarse = bundle("fcn32s")
    coarse.save(tmp_path / "coarse")
    run, start = begin(place, model=str(tmp_path / "coarse"), arch="fcn8s")
    assert start.architecture.arch == "fcn8s"
    assert start.state["fc6.weight"].equal(coarse.state["fc6.weight"])
    assert "new layers: score_pool4, score_pool3" in run.start_notes[-1]


def test_the_first_of_the_stages_gets_the_start_model(place: Path, saved: Path) -> None:
    run, start = begin(place, model=str(saved), staged=True)
    assert [stage.arch for stage in run.plan.stages] == ["fcn32s", "fcn16s", "fcn8s"]
    assert start.architecture.arch == "fcn32s"
    assert run.plan.architecture.arch == "fcn8s"


def test_a_stage_passes_on_what_it_has_learned(place: Path) -> None:
    trained = bundle("fcn16s", dropout=0.2)
    start = next_start(trained, "fcn8s", seed=0)
    assert start.architecture.arch == "fcn8s"
    assert start.architecture.dropout == 0.2
    assert start.state["score_pool4.weight"].equal(trained.state["score_pool4.weight"])
    assert not start.state["score_pool3.weight"].any(), "new score layers say nothing"


def test_other_classes_need_leave_to_make_new_score_layers(place: Path, tmp_path: Path) -> None:
    other = bundle(labels=preset("camvid"))
    other.save(tmp_path / "other")
    with pytest.raises(InputError, match=r"knows 11 classes \(camvid\), the data set has 3 \(data\); give --new-head"):
        begin(place, model=str(tmp_path / "other"))
    _, start = begin(place, model=str(tmp_path / "other"), new_head=True)
    assert start.labels.names == LABELS.names
    assert start.state["score_fr.weight"].shape[0] == 3
    assert start.state["fc6.weight"].equal(other.state["fc6.weight"])


def trunk() -> dict[str, torch.Tensor]:
    """The backbone of a small VGG16, by torchvision's names."""
    own = bundle().build().backbone.state_dict()
    return {f"features.{index}.{part}": own[name] for index, name, part in _torchvision_names(own)}


def _torchvision_names(own: dict[str, torch.Tensor]) -> list[tuple[int, str, str]]:
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in own))
    return [
        (index, f"{layer}.{part}", part)
        for index, layer in zip(indices, layers, strict=True)
        for part in ("weight", "bias")
    ]


def test_a_weight_file_becomes_the_backbone(place: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file(trunk(), tmp_path / "trunk.safetensors")
    options = {"model": str(tmp_path / "trunk.safetensors"), "width": 0.125, "head_width": 16}
    run, start = begin(place, **options)
    assert start.normalization == IMAGENET
    assert begin(place, **options, model_input="caffe")[1].normalization == CAFFE
    assert any("new layers: fc6, fc7" in note for note in run.start_notes)
    first = next(name for name in start.state if name.startswith("backbone") and name.endswith("weight"))
    assert start.state[first].equal(trunk()["features.0.weight"])


def test_a_weight_file_in_a_bucket_is_fetched(place: Path, tmp_path: Path, bucket: str) -> None:
    from pipeline.storage.opening import open_store

    safetensors.torch.save_file(trunk(), tmp_path / "trunk.safetensors")
    open_store(f"s3://{bucket}").put("trunk.safetensors", (tmp_path / "trunk.safetensors").read_bytes())
    _, start = begin(place, model=f"s3://{bucket}/trunk.safetensors", width=0.125, head_width=16)
    assert start.provenance["imported_from"] == "trunk.safetensors"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": "{place}/nothing"}, "nothing does not exist"),
        ({"train_split": "trian"}, r"no split 'trian' \(it has 'train', 'val'\)"),
        ({"val_split": "test"}, r"no split 'test'"),
        ({"dataset": "s3://no-such-bucket-3f1/x?endpoint_url=http://127.0.0.1:9"}, "127.0.0.1:9"),
        ({"output": "{place}/data/classes.txt"}, "classes.txt"),
        ({"labels": "voc", "model": "{saved}"}, r"knows 3 classes .* has 21 \(voc\)"),
        ({"model": "{place}/nowhere"}, "there is no model at"),
        ({"model": "{place}/none.pth"}, "none.pth"),
        ({"model": "{saved}", "backbone": "resnet50"}, "does not fit fcn8s on resnet50"),
        ({"workers": 4, "train": {"batch_size": 2}}, "batch_size of 2 cannot be shared by 4 workers"),
        ({"arch": "tv_fcn", "backbone": "vgg16"}, "resnet50 or resnet101"),
        ({"arch": "tv_fcn", "recipe": "paper"}, "tv_fcn is not one of them"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_nothing_is_done(
    place: Path,
    saved: Path,
    tmp_path: Path,
    s3_endpoint: str,
    hasty_storage: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    said: str,
) -> None:
    import re

    import yaml

    from tests import trainings

    def filled(value: Any) -> Any:
        return value.format(place=place, saved=saved) if isinstance(value, str) else value

    wanted = trainings.options(place, name="bad", output=str(tmp_path / "runs"))
    if "model" in options or options.get("arch") == "tv_fcn":
        wanted |= {"width": None, "head_width": None}
    train = wanted["train"] | options.get("train", {})
    wanted |= {name: filled(value) for name, value in options.items()} | {"train": train}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(wanted))
    assert re.search(said, refused(capsys, "train", tmp_path / "job.yaml"))
    assert not list(tmp_path.glob("runs/bad/job.json"))


def test_a_start_model_of_torchvisions_network_has_no_paper_recipe(place: Path, tmp_path: Path) -> None:
    ModelBundle.new(Architecture(arch="tv_fcn", num_classes=3), LABELS).save(tmp_path / "tv")
    with pytest.raises(InputError, match="tv_fcn is not one of them"):
        begin(place, model=str(tmp_path / "tv"), recipe="paper", width=None, head_width=None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"learning_rate": 0.5}}, "train_config.learning_rate was 0.001 and is 0.5"),
        ({"arch": "fcn16s"}, "architecture.arch was 'fcn8s' and is 'fcn16s'"),
        ({"dropout": 0.3}, "architecture.dropout was 0.5 and is 0.3"),
        ({"train_split": "val", "val_split": None}, "train.name was 'train' and is 'val'"),
        ({"validate_every": 3.0}, "validate_every was 1.0 and is 3.0"),
        ({"model": "registry:x@champion"}, "model was None and is 'registry:x@champion'"),
        ({"staged": True}, "stages was"),
    ],
)
def test_another_training_is_told_from_the_one_that_was_begun(place: Path, changes: dict[str, Any], named: str) -> None:
    first = job(place)
    run, _ = new_run(first, check_inputs(first))
    other = job(place, **changes)
    with pytest.raises(InputError) as refusal:
        check_same(other, check_inputs(other), run)
    assert named in str(refusal.value)
    assert "another --name" in str(refusal.value)


def test_where_and_how_fast_a_run_runs_may_change(place: Path) -> None:
    first = job(place)
    run, _ = new_run(first, check_inputs(first))
    other = job(
        place,
        workers=[1, 4],
        cpus_per_worker=3,
        placement="SPREAD",
        max_failures=-1,
        save_every=7,
        record_examples=True,
        train={"workers": 2},
    )
    check_same(other, check_inputs(other), run)


def test_a_data_set_that_has_grown_is_another(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    first = job(tmp_path)
    run, _ = new_run(first, check_inputs(first))
    write_scenes(tmp_path / "data", train=13)
    with pytest.raises(InputError, match=r"train\.examples was 12 and is 13"):
        check_same(first, check_inputs(first), run)


def test_a_name_in_both_splits_is_refused_by_the_lists_alone(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    with (tmp_path / "data/ImageSets/Segmentation/train.txt").open("a") as names:
        names.write("val-02\nval-01\n")
    with pytest.raises(InputError, match="val-01 and 1 more is in split train and in val"):
        check_inputs(job(tmp_path))


def test_two_rows_of_one_image_in_two_splits_are_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    rows = [("train-00", "train"), ("train-01", "train"), ("train-01", "val")]
    lines = [f"JPEGImages/{name}.jpg,SegmentationClass/{name}.png,{split}" for name, split in rows]
    (tmp_path / "data/list.csv").write_text("\n".join(["image,mask,split", *lines]))
    with pytest.raises(InputError, match=r"train-01\.jpg is in split train and in val"):
        check_inputs(job(tmp_path, dataset=str(tmp_path / "data/list.csv"), labels=str(_labels(tmp_path))))


def _labels(folder: Path) -> Path:
    file = folder / "labels.json"
    file.write_text(LABELS.model_dump_json())
    return file


def test_a_relative_path_is_the_same_place_from_another_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = job(place)
    run, _ = new_run(first, check_inputs(first))
    monkeypatch.chdir(place)
    other = job(place, dataset="data")
    check_same(other, check_inputs(other), run)


def test_a_file_without_a_backbone_is_refused(place: Path, tmp_path: Path) -> None:
    safetensors.torch.save_file({"features.0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError):
        begin(place, model=str(tmp_path / "part.safetensors"), width=0.125, head_width=16)


def test_a_plan_of_0_1_is_continued_whatever_its_settings_were_called(place: Path) -> None:
    asked = job(place, train={"gradient_accumulation_steps": 2, "backbone_lr_multiplier": 0.5, "max_grad_norm": 1.0})
    inputs = check_inputs(asked)
    run, _ = new_run(asked, inputs)
    called = {
        "gradient_accumulation_steps": "accumulate",
        "backbone_lr_multiplier": "backbone_rate_factor",
        "bias_lr_multiplier": "bias_rate_factor",
        "max_grad_norm": "clip_norm",
    }
    record = run.model_dump(mode="json")
    for stage in record["plan"]["stages"]:
        stage["config"] = {called.get(name, name): value for name, value in stage["config"].items()}
    assert set(called.values()) <= record["plan"]["stages"][0]["config"].keys()
    read = TrainRun.model_validate(record)
    assert read == run
    check_same(asked, inputs, read)


def test_the_latest_version_of_a_data_set_is_a_number_in_the_record_and_stays_it(tmp_path: Path) -> None:
    dataset = str(tmp_path / "set")
    import_dataset(write(tmp_path / "one", export(["a.jpg", "b.jpg"])), dataset, ImportOptions(val_share=0))
    changes = {
        "dataset": f"{dataset}@latest",
        "train_split": "train",
        "val_split": None,
        "output": str(tmp_path / "runs"),
    }
    asked = job(tmp_path, width=0.125, head_width=16, **changes)
    pinned = pin_dataset(asked)
    assert pinned.dataset == f"{dataset}@1"
    inputs = check_inputs(pinned)
    run, _ = new_run(pinned, inputs)
    assert run.plan.dataset == f"{dataset}@1"
    kept(asked).create_run(run)
    add_to_dataset(dataset, write(tmp_path / "two", export(["c.jpg"])), AddOptions())
    assert pin_dataset(asked).dataset == f"{dataset}@1"
    check_same(pin_dataset(asked), inputs, run)
    assert pin_dataset(asked.model_copy(update={"name": "another"})).dataset == f"{dataset}@2"
