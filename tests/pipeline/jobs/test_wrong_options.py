"""Whatever an option is given, in YAML, typed or through Prefect: it is taken, or refused in one sentence."""

import contextlib
import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from fcn_core.training.config import TrainConfig
from pipeline.cli.app import run as fcn
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.launch import Here, OnKubeRay, OnRayJobs
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from tests.commands import refused

TRAINING = {"name": "a", "output": "out", "dataset": "nowhere"}

JOBS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "segment": (SegmentJob, {"source": "nowhere", "output": "out", "model": "m"}),
    "evaluate": (EvaluateJob, {"model": "m", "dataset": "nowhere"}),
    "train": (TrainJob, TRAINING),
    "retrain": (
        RetrainJob,
        {"name": "a", "output": "out", "dataset": "nowhere", "registry_name": "n", "registry": "r"},
    ),
}


def options(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from options(kind, (*above, name))


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1


WRONG: dict[str, Any] = {
    "null": None, "nulls": [None], "10^20": 10**20, "10^400": 10**400, "-1": -1, "inf": math.inf, "nan": math.nan,
    "1e308": 1e308, "yes": True, "list": ["a", 1], "mapping": {"a": 1}, "nulls by name": {"a": None},
    "by number": {1: 2}, "deep": deep(50), "deeper": deep(200), "long": "y" * 100_000, "date": date(2026, 1, 1),
    "bytes": b"\xff\0", "zero byte": "a\0b", "half a pair": "\ud800", "control": "\x1b[2J", "set": {1, 2},
    "empty": "", "none": [],
}  # fmt: skip


@st.composite
def wrong_jobs(draw: st.DrawFn) -> tuple[str, tuple[str, ...], Any]:
    command = draw(st.sampled_from(sorted(JOBS)))
    option = draw(st.sampled_from(sorted(options(JOBS[command][0]))))
    return command, option, WRONG[draw(st.sampled_from(sorted(WRONG)))]


def with_option(given_already: dict[str, Any], option: tuple[str, ...], value: Any) -> dict[str, Any]:
    job = dict(given_already)
    inner = job
    for name in option[:-1]:
        inner = inner.setdefault(name, {})
    inner[option[-1]] = value
    return job


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(wrong_jobs())
def test_a_wrong_option_in_yaml_or_typed_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: tuple[str, tuple[str, ...], Any],
) -> None:
    command, option, value = wrong
    monkeypatch.chdir(tmp_path)  # nothing that is named here is there, so every job is refused in the end
    file = tmp_path / "job.yaml"
    file.write_text(yaml.dump(with_option(JOBS[command][1], option, value)))
    assert len(refused(capsys, command, *([] if command.endswith("train") else ["--config"]), file)) < 2_000
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and "\0" not in str(value):
        given_already = {(name,): text for name, text in JOBS[command][1].items()}
        typed = {**given_already, option: str(value)}
        places = {"segment": ("source", "output"), "evaluate": ("model", "dataset")}.get(command, ())
        words = [typed.pop((name,)) for name in places]
        for (*above, name), text in typed.items():
            words += ["--" + ".".join([*above, name]).replace("_", "-"), text]
        assert fcn([command, *words]) == 2
        assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("fcn: ")]) == 1


@settings(max_examples=150)
@given(wrong_jobs())
def test_a_wrong_option_through_prefect_is_refused_as_such(wrong: tuple[str, tuple[str, ...], Any]) -> None:
    from prefect.exceptions import ParameterTypeError

    from flows.evaluate import evaluate
    from flows.form import GROUPS
    from flows.retrain import retrain
    from flows.segment import segment

    command, option, value = wrong
    flow: Any = {"segment": segment, "evaluate": evaluate, "train": retrain, "retrain": retrain}[command]
    job = with_option(JOBS["retrain" if command == "train" else command][1], option, value)
    with contextlib.suppress(ParameterTypeError):
        flow.validate_parameters({"job": job})
    for group in GROUPS:
        if option[0] in group.options:  # as the form sends it; and a group that is wrong as a whole
            for inside in ({option[0]: job[option[0]]}, value):
                with contextlib.suppress(ParameterTypeError):
                    flow.validate_parameters({"job": JOBS[flow.name][1] | {group.name: inside}})


@pytest.mark.parametrize("job", [SegmentJob, EvaluateJob, RetrainJob, TrainConfig, Here, OnRayJobs, OnKubeRay])
def test_every_number_has_a_bound_that_a_machine_can_bear(job: type[BaseModel]) -> None:
    def numbers(schema: Any, where: str) -> Iterator[str]:
        if isinstance(schema, dict):
            if schema.get("type") in ("integer", "number") and not {"maximum", "exclusiveMaximum"} & schema.keys():
                yield where
            for name, part in schema.items():
                yield from numbers(part, f"{where}.{name}")
        elif isinstance(schema, list):
            for part in schema:
                yield from numbers(part, where)

    # Workers may also be written as one number, which is checked when it has become two.
    assert list(numbers(job.model_json_schema(mode="serialization"), job.__name__)) == []


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, True, 10**20, "inf", {"a": 1}])
def test_no_number_is_infinite_or_a_switch(value: Any) -> None:
    for model, places in JOBS.values():
        for name, field in model.model_fields.items():
            if {field.annotation, *get_args(field.annotation)} & {int, float}:
                with pytest.raises(ValidationError, match=name):
                    model.model_validate({**places, name: value})


@pytest.mark.parametrize(
    "text", ["include:", "exclude:", "include: [null]", "image_timeout: .inf", "snap: yes", "1: 2"]
)
def test_what_was_a_traceback_in_a_config_file_names_the_file_and_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    line = refused(capsys, "segment", "photos", "out", "--model", "m", "--config", file)
    assert str(file) in line
    assert text == "1: 2" or "--" + text.partition(":")[0].replace("_", "-") in line


def test_one_glob_may_stand_without_brackets() -> None:
    assert TypeAdapter(SegmentJob).validate_python({**JOBS["segment"][1], "include": "*.jpg"}).include == ("*.jpg",)
