"""What OpenVINO makes of a graph is found out in a process of its own; whatever happens there is one sentence."""

import contextlib
import os
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from fcn_core.bundle import Int8Graph
from fcn_core.errors import BundleError
from fcn_core.inference import graph_trial as trial
from fcn_core.inference.engines.openvino_engine import try_int8
from fcn_core.inference.graph_trial import Expected, try_graph
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import resolve_settings
from fcn_core.models.int8_graph.check import check_graph
from tests.fcn_core.models.int8_graph.graphs import changed, exported, layer, many_changes
from tests.fcn_core.nets import photo, small_bundle
from tests.requires import requires

requires("openvino", install="'fcn-pipeline[openvino]'")

EXPECTED = Expected((331, 445), (1, 5, 21, 28), 10_000_000)


def _settings() -> Any:
    return resolve_settings(device="cpu", precision="float32", engine="openvino", threads=2)


def test_a_sound_graph_is_tried_and_predicts() -> None:
    graph, _ = exported()
    bundle = replace(small_bundle("fcn16s", backbone="alexnet"), int8=graph)
    masks = [Predictor(each, _settings()).predict([photo(64, 96)])[0].mask
             for each in (bundle, replace(bundle, graph_tried=True))]  # fmt: skip
    assert np.array_equal(*masks)


def _stride(root: Element) -> None:
    data = layer(root, "Convolution").find("data")
    assert data is not None
    data.set("strides", "2,2")


def test_a_graph_of_other_shapes_is_refused() -> None:
    graph, architecture = exported()
    with pytest.raises(BundleError, match=r"the int8 graph is of no use: .*; use the float model"):
        try_int8(changed(graph, _stride), architecture, _settings())


def test_a_graph_that_makes_much_more_of_an_image_than_its_network_is_refused() -> None:
    graph, _ = exported()
    with pytest.raises(BundleError, match=r"makes \d+ values of an image, over \d+"):
        try_graph(
            check_graph(graph.graph, graph.values, 5), graph.values, replace(EXPECTED, largest_map=9), "float32", 1
        )


def test_a_graph_whose_scores_have_another_shape_than_the_networks_is_refused() -> None:
    graph, _ = exported()
    other = replace(EXPECTED, scores=(1, 5, 42, 56))
    with pytest.raises(BundleError, match=r"scores \[1, 5, 21, 28\] where the float network gives \[1, 5, 42, 56\]"):
        try_graph(check_graph(graph.graph, graph.values, 5), graph.values, other, "float32", 1)


def test_what_openvino_cannot_read_is_one_sentence() -> None:
    with pytest.raises(BundleError, match=r"of no use: OpenVINO refuses it \(.*\); use the float model") as refusal:
        try_graph(b"<net/>", b"", EXPECTED, "float32", 1)
    assert str(refusal.value).isprintable()


def test_a_crash_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is a real one and dies of a real signal: nobody has a graph that passes the check and crashes."""
    _start_instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BundleError, match=r"OpenVINO crashed on it \(SIGSEGV\)"):
        try_graph(b"<net/>", b"", EXPECTED, "float32", 1)


def test_a_graph_that_takes_for_ever_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "WALL_SECONDS", 0.01)
    graph, architecture = exported()
    with pytest.raises(BundleError, match="took more than 300 s to compile it"):
        try_int8(graph, architecture, _settings())


def test_a_graph_that_computes_for_ever_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "from fcn_core.inference.graph_trial_main import limit; limit(1, 1 << 34)\nwhile True: pass"
    _start_instead(monkeypatch, program)
    with pytest.raises(BundleError, match="took more than 300 s to compile it"):
        try_graph(b"<net/>", b"", EXPECTED, "float32", 1)


def test_a_graph_that_wants_more_memory_than_it_may_have_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MEMORY_BYTES", 1 << 20)
    graph, architecture = exported()
    with pytest.raises(BundleError, match="the int8 graph is of no use"):
        try_int8(Int8Graph(graph.graph, graph.values), architecture, _settings())


def test_a_trial_has_no_credentials_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    _start_instead(monkeypatch, "import os; print(sorted(os.environ)); raise SystemExit(3)")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BundleError) as refusal:
        try_graph(b"<net/>", b"", EXPECTED, "float32", 1)
    assert "PYTHONPATH" in str(refusal.value)
    assert "AWS" not in str(refusal.value)
    assert len(os.listdir("/proc/self/fd")) == before


def test_changed_graphs_that_pass_the_check_never_end_this_process() -> None:
    graph, architecture = exported()
    for each in many_changes(graph, 12):
        with contextlib.suppress(BundleError):
            try_int8(each, architecture, _settings())


def _start_instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    started = trial.subprocess.Popen

    def start(command: list[str], **options: Any) -> Any:
        return started([*command[:2], "-c", program], **options)

    monkeypatch.setattr(trial.subprocess, "Popen", start)
