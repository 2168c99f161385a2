"""Places with secrets in them are refused before anything can write them down."""

import pytest

from pipeline.errors import InputError
from pipeline.evaluation.options import EvaluateJob
from pipeline.segmentation.options import SegmentJob
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


@pytest.mark.parametrize(
    "uri",
    [
        "photos/user@home/a?token=1.jpg",
        "file:///photos/user@home?key=1",
        "s3://bucket/user@home/photos",
        "s3://bucket/photos?endpoint_url=http://localhost:9000&profile=me&region=eu-central-1",
        "az://container/photos",
        "registry:road@champion",
    ],
)
def test_other_places_are_left_alone(uri: str) -> None:
    assert refuse_secrets(uri) == uri
