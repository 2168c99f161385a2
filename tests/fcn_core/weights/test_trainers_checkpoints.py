"""Checkpoints as other trainers leave them are read for their weights, and nothing beside these is made or run."""

import argparse
import collections
import datetime
import os
import pathlib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcn_core.errors import WeightsError
from fcn_core.weights.importing import import_weights
from fcn_core.weights.names import recognize, unwrapped
from fcn_core.weights.transplant import read_tensors
from tests.fcn_core.nets import LABELS, small_net

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(data_path="/data", lr=0.02, nested=argparse.Namespace(a=1)),
        types.SimpleNamespace(lr=1),
        pathlib.Path("/data"),
        pathlib.PosixPath("runs/1"),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(seconds=3),
        collections.defaultdict(list, a=[1]),
        np.arange(4),
        np.float32(0.5),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("old", [False, True])
def test_options_and_times_beside_the_weights_do_not_keep_them_away(tmp_path: Path, beside: Any, old: bool) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"model": WEIGHTS, "args": beside, "epoch": 3}, file, _use_new_zipfile_serialization=not old)
    read = read_tensors(file)
    assert read.keys() == WEIGHTS.keys()
    assert torch.equal(read["a.weight"], WEIGHTS["a.weight"])


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("hidden", [Runs(), argparse.Namespace(a=Runs()), eval, getattr, torch.nn.Linear(1, 1)])
def test_what_is_not_known_to_be_harmless_is_still_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": WEIGHTS, "args": hidden}, "checkpoint.pth")
    with pytest.raises(WeightsError, match="never loaded"):
        read_tensors("checkpoint.pth")
    assert not Path("ran").exists()


def test_a_checkpoint_of_another_key_gives_its_largest_part(tmp_path: Path) -> None:
    torch.save({"model_state": WEIGHTS, "scaler": {"scale": torch.ones(())}, "epoch": 1}, tmp_path / "c.pth")
    assert read_tensors(tmp_path / "c.pth").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.", "model._orig_mod.", "net.module.", "student."])
def test_names_with_a_wrappers_prefix_are_read_without_it(tmp_path: Path, prefix: str) -> None:
    net = small_net()
    state = {f"{prefix}{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(3)}}, tmp_path / "last.ckpt")
    found, inner = unwrapped(read_tensors(tmp_path / "last.ckpt"))
    assert found == prefix
    assert inner.keys() - {"criterion.weight"} == net.state_dict().keys()
    imported = import_weights(tmp_path / "last.ckpt", "fcn8s", labels=LABELS, head_width=16, width=0.125)
    assert not imported.untrained


def test_a_classifier_within_a_decoder_is_taken_alone() -> None:
    trunk = {name.removeprefix("backbone."): v for name, v in small_net().state_dict().items() if "backbone." in name}
    state = {f"encoder.{name}": value for name, value in trunk.items()} | {"decoder.blocks.0.weight": torch.ones(1)}
    found, inner = unwrapped(state)
    assert (found, inner.keys()) == ("encoder.", trunk.keys())


def test_of_two_networks_neither_is_guessed() -> None:
    state = small_net().state_dict()
    both = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in state.items()}
    assert unwrapped(both) == ("", both)


def test_another_head_is_not_called_that_of_fcn() -> None:
    names = ["backbone." + name for name in ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv3.weight")]
    depth = {"backbone.layer3.5.conv1.weight": torch.ones(1), "backbone.layer4.2.conv3.weight": torch.ones(1)}
    state = {name: torch.ones(1) for name in [*names, "classifier.0.project.0.weight", "classifier.4.weight"]} | depth
    family = recognize(state)
    assert family is not None
    assert "deeplab" in family.what
