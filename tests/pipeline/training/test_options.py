"""The options of a training job: from a file, from the command line, and what they make of the recipes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fcn_core.training.config import TrainConfig, recipe
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.train import TrainJob, merged, optional
from tests.commands import refused

PLACES = {"name": "a", "output": "runs", "dataset": "data"}


def job(**changes: Any) -> TrainJob:
    return TrainJob.model_validate(PLACES | changes)


@pytest.mark.parametrize(
    ("given_as", "workers"),
    [(2, (2, 2)), ("2", (2, 2)), ([2], (2, 2)), ([1, 4], (1, 4)), ("1,4", (1, 4)), ("1-4", (1, 4)), ((3, 3), (3, 3))],
)
def test_workers_are_a_number_or_a_range(given_as: object, workers: tuple[int, int]) -> None:
    assert job(workers=given_as).workers == workers


@pytest.mark.parametrize("wrong", [0, "0", [4, 1], [1, 2, 3], "many", -1, [], None])
def test_other_workers_are_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        job(workers=wrong)


def test_a_job_without_settings_is_the_recipe() -> None:
    assert job().train_config("fcn8s") == recipe("modern")
    assert job(recipe="paper").train_config("fcn16s") == recipe("paper", "fcn16s")


def test_settings_change_the_recipe_and_leave_the_rest_of_it() -> None:
    config = job(recipe="paper", train={"weight_decay": 0.1, "augmentation": {"flip": 0.5}}).train_config("fcn8s")
    assert config.weight_decay == 0.1
    assert config.augmentation.flip == 0.5
    assert config.augmentation.crop_height is None, "whole images, as the paper's recipe has them"
    assert config.momentum == 0.99


def test_epochs_take_the_place_of_the_recipes_steps() -> None:
    config = job(recipe="paper", train={"epochs": 3}).train_config("fcn8s")
    assert (config.epochs, config.steps) == (3, None)


def test_a_setting_can_be_taken_away() -> None:
    assert job(train={"max_grad_norm": None}).train_config("fcn8s").max_grad_norm is None


def test_the_paper_trains_in_stages_each_at_its_own_rate() -> None:
    paper = job(recipe="paper", arch="fcn8s")
    stages = paper.stages("fcn8s")
    assert stages == ("fcn32s", "fcn16s", "fcn8s")
    assert [paper.train_config(arch).learning_rate for arch in stages] == [1e-10, 1e-12, 1e-14]
    assert job(recipe="paper", staged=False).stages("fcn8s") == ("fcn8s",)
    assert job(staged=True).stages("fcn16s_padded") == ("fcn32s_padded", "fcn16s_padded")
    assert job(recipe="paper", arch="fcn8s_atonce_padded").stages("fcn8s_atonce_padded") == ("fcn8s_atonce_padded",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"steps": 1, "epochs": 1}}, "steps 1 and epochs 1 are both given"),
        ({"train": {"learning_rate": -1}}, "learning_rate"),
        ({"train": {"device": "cuda"}}, "device"),
        ({"train": {"rate": 1}}, "rate"),
        ({"staged": True, "arch": "tv_fcn"}, "tv_fcn is not trained in stages"),
        ({"recipe": "paper", "arch": "tv_fcn"}, "tv_fcn is not one of them"),
        ({"name": "../elsewhere"}, "name"),
        ({"name": ""}, "name"),
        ({"nccl": {"LD_PRELOAD": "x"}}, "LD_PRELOAD is no variable of NCCL's"),
        ({"network_interface": "eth0 eth1"}, "network_interface"),
        ({"use_gpu": False, "resources_per_worker": {"GPU": 1}}, "GPU"),
        ({"resources_per_worker": {"CPU": 2}}, "cpus_per_worker"),
        ({"max_failures": -2}, "max_failures"),
        ({"epochs": 3}, "epochs"),
        ({"train_split": "all", "val_split": "all"}, "train_split and val_split are both 'all'"),
        (
            {"class_balance": "log", "train": {"class_weights": [1.0, 2.0]}},
            "class_balance log and train.class_weights both weight the classes",
        ),
        ({"train": {"class_weights": [0.0, 0.0]}}, "class_weights are all 0"),
        ({"train": {"precision": "float16"}, "use_gpu": False}, "float16 needs a CUDA device"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        job(**changes)


def numbers(form: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type]]:
    """Every option of a form, and of the forms in it, that takes a number."""
    for name, field in form.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from numbers(kind, (*path, name))
            elif kind in (int, float):
                yield (*path, name), kind


def of_training(number: tuple[tuple[str, ...], type]) -> bool:
    return number[0][0] not in ("relabel", "evaluation")


@pytest.mark.parametrize(("path", "kind"), [*filter(of_training, numbers(RetrainJob)), (("workers",), int)])
def test_no_number_is_infinite_or_beyond_what_a_machine_counts_with(path: tuple[str, ...], kind: type) -> None:
    for value in (float("inf"), float("nan"), 2**64, -(2**64)) if kind is int else (float("inf"), float("nan")):
        changes: Any = value
        for name in reversed(path):
            changes = {name: changes}
        with pytest.raises(ValidationError, match=path[-1]):
            RetrainJob.model_validate(PLACES | {"registry_name": "x"} | changes)


def test_float16_can_be_chosen_where_workers_may_have_gpus() -> None:
    assert job(train={"precision": "float16"}).train_config("fcn8s").precision == "float16"


def test_a_form_without_obligations_remembers_what_was_given() -> None:
    form = optional(TrainConfig)
    assert form().model_dump(exclude_unset=True) == {}
    given_form = form.model_validate({"epochs": 2, "max_grad_norm": None, "augmentation": {"flip": 0}})
    assert given_form.model_dump(exclude_unset=True) == {
        "epochs": 2,
        "max_grad_norm": None,
        "augmentation": {"flip": 0},
    }
    assert "Default: 4." in (form.model_fields["batch_size"].description or "")


def test_a_job_that_is_written_down_and_read_again_is_the_same() -> None:
    asked = job(train={"epochs": 2, "max_grad_norm": None, "augmentation": {"flip": 0}}, workers=[1, 3])
    for written in (asked.model_dump(), asked.model_dump(mode="json")):
        again = TrainJob.model_validate(written)
        assert again.train_config("fcn8s") == asked.train_config("fcn8s")
        assert again.workers == (1, 3)
    assert TrainJob.model_json_schema()["properties"]["train"]


values = st.recursive(
    st.integers() | st.none(), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=12
)
mappings = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@given(mappings, mappings)
def test_changes_win_and_touch_nothing_else(base: dict[str, Any], changes: dict[str, Any]) -> None:
    result = merged(base, changes)
    assert result.keys() == base.keys() | changes.keys()
    assert merged(result, changes) == result
    assert all(result[name] == base[name] for name in base.keys() - changes.keys())
    assert all(result[name] == changes[name] for name in changes if not isinstance(changes[name], dict))


def test_the_command_line_wins_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(PLACES | {"train": {"epochs": 3, "augmentation": {"flip": 2}}, "workers": [1, 4]}))
    assert "--train.augmentation.flip" in refused(capsys, "train", file)
    # Mended on the command line, the next trouble is the data set that is not there.
    line = refused(capsys, "train", file, "--train.augmentation.flip", "0.5", "--dataset", tmp_path / "nothing")
    assert f"{tmp_path}/nothing does not exist" in line
    off = ("--no-check-data", "--train.sync-batch-norm=false", "--train.augmentation.flip", "0.5")
    assert f"{tmp_path}/nothing does not exist" in refused(
        capsys, "train", file, *off, "--dataset", tmp_path / "nothing"
    )


def test_mappings_and_ranges_can_be_given_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(PLACES | {"nccl": {"NCCL_DEBUG": "INFO"}}))
    assert "LD_PRELOAD is no variable of NCCL's" in refused(capsys, "train", file, "--nccl.LD_PRELOAD", "x")
    assert "--workers" in refused(capsys, "train", file, "--workers", "4-1")
    assert "use_gpu is false" in refused(
        capsys, "train", file, "--workers", "1-4", "--no-use-gpu", "--resources-per-worker.GPU", "1"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: a\nouput: x", "ouput"),
        ("- name", "holds no options"),
        ("name: [", "cannot be read"),
        ("name: a", "output"),
    ],
)
def test_a_wrong_job_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    assert said in refused(capsys, "train", file)


def test_a_job_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}/no.yaml" in refused(capsys, "train", tmp_path / "no.yaml")
