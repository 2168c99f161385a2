"""Places with secrets in them are refused before anything can write them down."""

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.storage.uri import refuse_secrets
from tests.hostile.test_secrets import IN_URIS, SECRET_URIS


@pytest.mark.parametrize("uri", SECRET_URIS)
def test_a_secret_is_refused_and_not_repeated(uri: str) -> None:
    good = {"source": "photos", "output": "labels", "model": "model"}
    for option in good:
        with pytest.raises(InputError, match="credentials do not belong into a URI") as caught:
            SegmentJob(**good | {option: uri})  # type: ignore[arg-type]
        assert IN_URIS not in str(caught.value)
    for job in ({"dataset": uri, "model": "model"}, {"dataset": "set", "model": uri}):
        with pytest.raises(InputError) as caught:
            EvaluateJob(**job)  # type: ignore[arg-type]
        assert IN_URIS not in str(caught.value)
    for option in ("output", "dataset", "model", "registry"):
        with pytest.raises(InputError) as caught:
            TrainJob.model_validate({"name": "a", "output": "runs", "dataset": "set"} | {option: uri})
        assert IN_URIS not in str(caught.value)


PLACES = [
    "photos/user@home/a?token=1.jpg",
    "file:///photos/user@home?key=1",
    "s3://bucket/user@home/photos",
    "s3://bucket/photos?endpoint_url=http://localhost:9000&profile=me&region=eu-central-1",
    "az://container/photos",
    "registry:road@champion",
]


@pytest.mark.parametrize("uri", PLACES)
def test_other_places_are_left_alone(uri: str) -> None:
    assert refuse_secrets(uri) == uri


def refused_by_schema(uri: str) -> bool:
    """Whether a form that knows the job's JSON schema, and none of our code, refuses `uri`."""
    job = {"source": uri, "output": "labels", "model": "model"}
    return not Draft202012Validator(SegmentJob.model_json_schema()).is_valid(job)


@pytest.mark.parametrize("uri", SECRET_URIS)
def test_a_form_refuses_a_secret_by_the_schema_alone(uri: str) -> None:
    assert refused_by_schema(uri)


@pytest.mark.parametrize("uri", PLACES)
def test_a_form_leaves_other_places_alone(uri: str) -> None:
    assert not refused_by_schema(uri)


def test_an_empty_place_is_refused() -> None:
    with pytest.raises(ValidationError, match="should be a path or URI"):
        SegmentJob(source="", output="labels", model="model")
    assert refused_by_schema("")
