"""A bundle on disk is the model, whole and unaltered, or an error that says what is wrong."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError
from fcn_core.labels import preset
from fcn_core.models.architecture import Architecture
from fcn_core.models.description import MODEL_FILE, WEIGHTS_FILE
from fcn_core.normalization import CAFFE, IMAGENET, Normalization
from tests.fcn_core.nets import LABELS, small_bundle, small_net


def test_saved_bundle_predicts_the_same(tmp_path: Path) -> None:
    model = small_net()
    bundle = ModelBundle.from_model(model, LABELS, CAFFE, provenance={"by": "a test"}, scores={"mean_iou": 0.5})
    bundle.save(tmp_path / "model")
    loaded = ModelBundle.load(tmp_path / "model")
    assert loaded.model_id == bundle.model_id
    assert (loaded.architecture, loaded.labels, loaded.normalization) == (model.architecture, LABELS, CAFFE)
    assert (loaded.provenance, loaded.scores) == ({"by": "a test"}, {"mean_iou": 0.5})
    x = torch.randn(1, 3, 40, 50)
    rebuilt = loaded.build()
    assert not rebuilt.training
    assert torch.equal(rebuilt(x), model(x))


def test_same_model_gives_the_same_bytes() -> None:
    bundle = small_bundle()
    shuffled = replace(bundle, state=dict(reversed(list(bundle.state.items()))))
    assert bundle.to_files() == small_bundle().to_files() == shuffled.to_files()
    assert ModelBundle.from_files(bundle.to_files()).to_files() == bundle.to_files()


def test_channels_last_weights_are_the_same_weights() -> None:
    model = small_net()
    expected = ModelBundle.from_model(model, LABELS).model_id
    assert ModelBundle.from_model(model.to(memory_format=torch.channels_last), LABELS).model_id == expected


def test_model_id_follows_what_prediction_depends_on() -> None:
    bundle = small_bundle()
    other_name = LABELS.model_copy(update={"names": ("a", "b", "c", "d", "x")})
    different = [
        small_bundle(seed=1),
        small_bundle("fcn16s"),
        replace(bundle, normalization=CAFFE),
        replace(bundle, labels=other_name),
    ]
    ids = {candidate.model_id for candidate in [bundle, *different]}
    assert len(ids) == 5
    assert all(len(model_id) == 16 and int(model_id, 16) >= 0 for model_id in ids)
    assert replace(bundle, provenance={"note": 1}, scores={"mean_iou": 1.0}).model_id == bundle.model_id


def test_new_models_follow_their_seed_and_leave_the_callers_random_state() -> None:
    architecture = Architecture(num_classes=11, width=0.125, head_width=8)
    before = torch.random.get_rng_state()
    ids = [ModelBundle.new(architecture, preset("camvid"), seed=seed).model_id for seed in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ids[0] == ids[1] != ids[2]


def test_bundle_is_a_snapshot() -> None:
    model = small_net()
    bundle = ModelBundle.from_model(model, LABELS)
    before = bundle.to_files()
    with torch.no_grad():
        model.fc6.weight.zero_()
        bundle.build().fc6.weight.zero_()
    assert bundle.to_files() == before


def test_half_precision_weights_are_kept_small_and_built_as_float32() -> None:
    bundle = small_bundle()
    half = replace(bundle, state={name: tensor.bfloat16() for name, tensor in bundle.state.items()})
    files = half.to_files()
    assert len(files[WEIGHTS_FILE]) < 0.6 * len(bundle.to_files()[WEIGHTS_FILE])
    assert ModelBundle.from_files(files).build().fc6.weight.dtype == torch.float32


Files = dict[str, bytes]


def _edited(files: Files, change: Callable[[dict[str, Any]], object]) -> Files:
    values = json.loads(files[MODEL_FILE])
    change(values)
    return {**files, MODEL_FILE: json.dumps(values).encode()}


def _with_weights(files: Files, weights: bytes) -> Files:
    """The files with other weights, and a description that agrees with them."""
    from hashlib import sha256

    from fcn_core.bundle import _model_id

    bundle = small_bundle()
    digest = sha256(weights).hexdigest()
    identity = _model_id(bundle.architecture, bundle.labels, bundle.normalization, digest)
    description = _edited(files, lambda v: v.update(weights_sha256=digest, model_id=identity))
    return {**description, WEIGHTS_FILE: weights}


def _with_state(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Files], Files]:
    def damage(files: Files) -> Files:
        state = safetensors.torch.load(files[WEIGHTS_FILE])
        change(state)
        return _with_weights(files, safetensors.torch.save(state))

    return damage


DAMAGE: list[tuple[str, Callable[[Files], Files], str]] = [
    ("no description", lambda f: {WEIGHTS_FILE: f[WEIGHTS_FILE]}, "model.json is missing"),
    ("no weights", lambda f: {MODEL_FILE: f[MODEL_FILE]}, "model.safetensors is missing"),
    ("not JSON", lambda f: {**f, MODEL_FILE: b"{"}, "model.json is not JSON"),
    ("not text", lambda f: {**f, MODEL_FILE: b"\xff\xfe\x00"}, "model.json is not JSON"),
    ("a list", lambda f: {**f, MODEL_FILE: b"[]"}, "format version None, this program reads 1"),
    ("newer", lambda f: _edited(f, lambda v: v.update(format_version=3)), "format version 3"),
    ("int8 without its graph", lambda f: _edited(f, lambda v: v.update(format_version=2)), "is of int8 bundles"),
    ("field missing", lambda f: _edited(f, lambda v: v.pop("labels")), r"not valid \(labels: Field required"),
    ("field unknown", lambda f: _edited(f, lambda v: v.update(x=1)), r"not valid \(x: Extra"),
    (
        "bad labels",
        lambda f: _edited(f, lambda v: v["labels"].update(names=["a"])),
        "not valid .*1 names but 5 colours",
    ),
    ("labels edited", lambda f: _edited(f, lambda v: v["labels"].update(name="x")), "it was edited after"),
    (
        "other classes",
        lambda f: _edited(f, lambda v: v["architecture"].update(num_classes=4)),
        "it was edited after",
    ),
    ("weights cut", lambda f: {**f, WEIGHTS_FILE: f[WEIGHTS_FILE][:-1]}, "has SHA-256 .* model.json says"),
    (
        "weights flipped",
        lambda f: {**f, WEIGHTS_FILE: f[WEIGHTS_FILE][:-1] + bytes([f[WEIGHTS_FILE][-1] ^ 1])},
        "has SHA-256",
    ),
    ("weights no safetensors", lambda f: _with_weights(f, b"nonsense"), "is not a safetensors file"),
    ("weights empty", lambda f: _with_weights(f, b""), "is not a safetensors file"),
    ("tensor missing", _with_state(lambda s: s.pop("fc6.bias")), r"1 missing \(first: fc6.bias\)"),
    ("tensor unknown", _with_state(lambda s: s.update(y=torch.ones(1))), r"1 unknown \(first: y\)"),
    (
        "tensor of wrong shape",
        _with_state(lambda s: s.update({"fc6.bias": torch.ones(3)})),
        r"1 of wrong shape \(first: fc6.bias is \[3\], not \[16\]\)",
    ),
    (
        "tensor of integers",
        _with_state(lambda s: s.update({"fc6.bias": torch.ones(16, dtype=torch.int32)})),
        "fc6.bias is torch.int32, not floating point",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_every_damage_is_named(damage: Callable[[Files], Files], message: str) -> None:
    files = damage(small_bundle().to_files())
    with pytest.raises(BundleError, match=rf"^here: .*{message}"):
        ModelBundle.from_files(files, source="here")


def test_missing_folder_and_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        ModelBundle.load(tmp_path / "none")
    with pytest.raises(BundleError, match=r"model\.json is missing"):
        ModelBundle.load(tmp_path)


def test_another_model_is_not_overwritten_unasked(tmp_path: Path) -> None:
    first, second = small_bundle(seed=1), small_bundle(seed=2)
    first.save(tmp_path)
    (tmp_path / "README").write_text("mine")
    with pytest.raises(BundleError, match=r"already holds another model.*overwrite=True"):
        second.save(tmp_path)
    assert ModelBundle.load(tmp_path).model_id == first.model_id
    second.save(tmp_path, overwrite=True)
    assert ModelBundle.load(tmp_path).model_id == second.model_id
    assert (tmp_path / "README").read_text() == "mine"


def test_same_model_may_be_saved_again_with_new_notes(tmp_path: Path) -> None:
    bundle = small_bundle()
    bundle.save(tmp_path / "deep" / "model")
    replace(bundle, scores={"mean_iou": 0.7}).save(tmp_path / "deep" / "model")
    assert ModelBundle.load(tmp_path / "deep" / "model").scores == {"mean_iou": 0.7}


def test_interrupted_overwrite_is_noticed(tmp_path: Path) -> None:
    small_bundle(seed=1).save(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(small_bundle(seed=2).to_files()[WEIGHTS_FILE])
    with pytest.raises(BundleError, match="SHA-256"):
        ModelBundle.load(tmp_path)


def test_saving_leaves_nothing_else_behind(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "model")
    small_bundle().save(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
    assert sorted(os.listdir(tmp_path / "model")) == [MODEL_FILE, WEIGHTS_FILE]


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot write the model bundle"):
        small_bundle().save(tmp_path / "file" / "model")


def test_notes_that_are_not_json_are_refused() -> None:
    with pytest.raises(BundleError, match="plain JSON values"):
        replace(small_bundle(), scores={"mean_iou": float("nan")}).to_files()


def test_labels_must_match_the_network() -> None:
    with pytest.raises(BundleError, match="scores 5 classes but label set 'voc' names 21"):
        ModelBundle.from_model(small_net(), preset("voc"))


def test_normalisation_is_the_formula() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = torch.tensor(IMAGENET.mean)[:, None, None], torch.tensor(IMAGENET.std)[:, None, None]
    torch.testing.assert_close(IMAGENET.apply(pixels), (pixels / 255 - mean) / std)
    caffe = pixels.flip(1).float() - torch.tensor(CAFFE.mean)[:, None, None]
    torch.testing.assert_close(CAFFE.apply(pixels), caffe)


def test_normalisation_leaves_its_input_alone() -> None:
    pixels = torch.full((3, 2, 2), 100.0)
    IMAGENET.apply(pixels)
    assert bool((pixels == 100).all())


@pytest.mark.parametrize(
    "wrong", [{"scale": 0}, {"std": (1, 0, 1)}, {"mean": (float("nan"), 0, 0)}, {"channel_order": "yuv"}]
)
def test_impossible_normalisations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Normalization.model_validate(wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, dtype: torch.dtype) -> None:
    bundle = small_bundle()
    state = {name: tensor.clone() for name, tensor in bundle.state.items()}
    state["fc7.weight"] = state["fc7.weight"].to(dtype)
    state["fc7.weight"].view(-1)[-1] = value
    files = replace(bundle, state=state).to_files()
    with pytest.raises(BundleError, match=r"the model: weights that are NaN or infinite: fc7\.weight; use an earlier"):
        ModelBundle.from_files(files, "the model")
