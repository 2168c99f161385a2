"""Prefect's form is grouped, and what comes out of it is the same job as from the command line."""

from typing import Any, get_args

import pytest
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter, ValidationError

from flows.distil import distil
from flows.evaluate import evaluate
from flows.form import NOT_SHOWN, DistilForm, EvaluateForm, Form, RetrainForm, SegmentForm
from flows.improve import learn
from flows.retrain import retrain
from flows.segment import segment
from pipeline.jobs.segment import SegmentJob

PLACES = {"source": "/photos", "output": "/labels", "model": "/model"}
FORMS = [SegmentForm, EvaluateForm, RetrainForm, DistilForm]
FLOWS = [segment, evaluate, retrain, distil, learn]

read = TypeAdapter(SegmentForm).validate_python


def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump()


def ungrouped(properties: dict[str, Any]) -> list[str]:
    """The options of a job's form, in its groups or outside of them, as they stand."""
    found: list[str] = []
    for name, option in properties.items():
        choices = [choice for choice in option.get("anyOf", ()) if "properties" in choice]
        found += ungrouped(choices[0]["properties"]) if choices else [name]
    return found


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_option_but_ray_address_is_in_the_form_once(flow: Flow[..., Any]) -> None:
    definitions = schema_of(flow)["definitions"]
    (job,) = (form for form in FORMS if get_args(form)[0] is flow.fn.__annotations__["job"].__origin__)
    model = get_args(job)[0]
    shown = ungrouped(definitions[model.__name__]["properties"])
    assert sorted(shown) == sorted(set(model.model_fields) - set(NOT_SHOWN))
    for name, part in definitions.items():
        assert "ray_address" not in part.get("properties", {}), f"{name}: launch says where"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: get_args(form)[0].__name__)
def test_every_option_has_a_group_of_its_kind(form: Any) -> None:
    (shape,) = (each for each in get_args(form) if isinstance(each, Form))
    assert [group.name for group in shape.groups if group.name == "more"] == []
    names = [name for group in shape.groups for name in group.options]
    assert len(set(names)) == len(names)
    assert {group.name for group in shape.groups}.isdisjoint(get_args(form)[0].model_fields)


def test_source_and_output_come_first_and_groups_are_folded() -> None:
    options = schema_of(segment)["definitions"]["SegmentJob"]["properties"]
    in_order = sorted(options, key=lambda name: options[name]["position"])  # a server's database keeps no other order
    assert in_order[:2] == ["source", "output"]
    groups = [options[name] for name in in_order if "properties" in options[name].get("anyOf", [{}])[0]]
    assert [group["title"] for group in groups][:2] == ["Images", "Prediction"]
    for group in groups:
        assert group["default"] is None, "so the form shows it folded"
        assert [option["position"] for option in group["anyOf"][0]["properties"].values()] == list(
            range(len(group["anyOf"][0]["properties"]))
        )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"limits": None, "images": {}}, {}),
        ({"limits": {"max_error_rate": 0.5}}, {"max_error_rate": 0.5}),
        ({"max_error_rate": 0.5}, {"max_error_rate": 0.5}),
        ({"max_error_rate": 0.5, "limits": {"allow_empty": True}}, {"max_error_rate": 0.5, "allow_empty": True}),
        ({"ray_address": "local"}, {"ray_address": "local"}),
    ],
)
def test_an_option_by_itself_and_in_its_group_make_the_same_job(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert read(PLACES | options) == SegmentJob.model_validate(PLACES | expected)
    assert validate({"job": PLACES | options}, schema_of(segment)) == [], "the server takes it, too"


def test_a_flow_takes_a_job_as_it_is() -> None:
    job = SegmentJob(source="/photos", output="/labels", model="/model", limit=3)
    assert read(job) == job


@pytest.mark.parametrize(
    ("options", "message", "refused_by_the_server"),
    [
        ({"limits": {"max_error_rate": 7}}, "less than or equal to 1", True),
        ({"max_error_rate": 7}, "less than or equal to 1", True),
        ({"limits": {"actors": 2}}, "actors is no option of the group limits", True),
        ({"limits": 7}, "limits is a group of options, not a value", True),
        ({"limit": 7, "images": {"limit": 8}}, "limit is given twice: by itself and in images", False),
        ({"actor": 2}, "Extra inputs are not permitted", True),
    ],
)
def test_what_is_wrong_in_a_group_is_said_in_a_sentence(
    options: dict[str, Any], message: str, refused_by_the_server: bool
) -> None:
    with pytest.raises(ValidationError, match=message):
        read(PLACES | options)
    assert bool(validate({"job": PLACES | options}, schema_of(segment))) == refused_by_the_server
