"""A model reaches the actors with its graph tried, or ends the job before it begins."""

from dataclasses import replace
from xml.etree.ElementTree import Element

import pytest
import ray

from fcn_core import ModelBundle, PredictorSettings
from fcn_core.inference.settings import resolve_settings
from pipeline.actors import model_files
from pipeline.actors.model_files import load_tried, put_model
from pipeline.errors import InputError
from tests.fcn_core.models.int8_graph.graphs import changed, exported, layer
from tests.fcn_core.nets import small_bundle
from tests.requires import requires

requires("openvino", install="'fcn-pipeline[openvino]'")

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _settings() -> PredictorSettings:
    return resolve_settings(device="cpu", precision="float32", engine="openvino", threads=2)


def _bundle() -> ModelBundle:
    return replace(small_bundle("fcn16s", backbone="alexnet"), int8=exported()[0])


@pytest.fixture(autouse=True, params=["in the driver", "on a cluster"])
def _where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "only_node_is_here", lambda: request.param == "in the driver")


def test_a_sound_graph_arrives_and_is_not_tried_again() -> None:
    bundle = _bundle()
    arrived = load_tried(ray.get(put_model(bundle, _settings())))
    assert arrived.int8 == bundle.int8
    assert arrived.graph_tried


def test_a_graph_of_no_use_ends_a_job_before_it_begins() -> None:
    """It passes the check: only what it makes of an image is wrong."""

    def coarser(root: Element) -> None:
        data = layer(root, "Convolution").find("data")
        assert data is not None
        data.set("strides", "2,2")

    bundle = replace(_bundle(), int8=changed(exported()[0], coarser))
    with pytest.raises(
        InputError, match=rf"model {bundle.model_id}: the int8 graph is of no use: it gives scores .*; use the float"
    ):
        put_model(bundle, _settings())
