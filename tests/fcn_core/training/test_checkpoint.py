import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core.errors import CheckpointError
from fcn_core.training import checkpoint
from fcn_core.training.checkpoint import STATE_FILE, TENSORS_FILE, from_files, to_files

STATE = {
    "model": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2], dtype=torch.int64)},
    "step": 7,
    "seconds": 1.5,
    "history": [{"loss": 0.25, "names": ["x", "y"]}, None],
}

leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
leaves |= st.text(max_size=5)
tensors = st.builds(
    lambda shape, dtype: torch.arange(shape[0] * shape[1]).reshape(shape).to(dtype),
    st.tuples(st.integers(0, 3), st.integers(1, 3)),
    st.sampled_from([torch.float32, torch.int64, torch.bfloat16]),
)
keys = st.text("abc.", min_size=1, max_size=3)
trees = st.dictionaries(
    keys,
    st.recursive(
        leaves | tensors, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_size=4,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b and type(a) is type(b)


@given(trees)
@settings(max_examples=60, deadline=None)
def test_any_state_comes_back_as_it_was(state):
    assert same(from_files(to_files(state)), state)


def test_equal_states_give_equal_bytes_whatever_their_memory_format():
    plain = {"w": torch.arange(48.0).reshape(2, 3, 4, 2)}
    strided = {"w": plain["w"].contiguous(memory_format=torch.channels_last)}
    assert to_files(plain) == to_files(strided)


def test_the_commit_is_written_last():
    assert list(to_files(STATE)) == [TENSORS_FILE, STATE_FILE]


@pytest.mark.parametrize("state", [{1: 2}, {"x": {2}}, {"x": float("nan")}, {"$tensor": 1}])
def test_what_the_files_cannot_hold_is_refused(state):
    with pytest.raises(CheckpointError):
        to_files(state)


@pytest.mark.parametrize("name", [TENSORS_FILE, STATE_FILE])
def test_a_missing_file_is_named(name):
    files = {key: value for key, value in to_files(STATE).items() if key != name}
    with pytest.raises(CheckpointError, match=f"here: {name} is missing"):
        from_files(files, "here")


@pytest.mark.parametrize("name", [TENSORS_FILE, STATE_FILE])
def test_every_cut_and_every_flipped_bit_is_noticed(name):
    whole = to_files(STATE)
    content = whole[name]
    # A space, a line break or a sign of the JSON may change without meaning anything else; the tensors may not.
    damaged = [content[:end] for end in range(0, len(content) - 1, 7)]
    if name == TENSORS_FILE:
        damaged += [content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] for at in range(0, len(content), 5)]
    for bad in damaged:
        with pytest.raises(CheckpointError):
            from_files({**whole, name: bad})


def test_files_of_two_checkpoints_do_not_mix():
    other = to_files({**STATE, "model": {"a.weight": torch.zeros(2, 3)}})
    with pytest.raises(CheckpointError, match=r"not the one that state\.json was written for"):
        from_files({**to_files(STATE), TENSORS_FILE: other[TENSORS_FILE]})


def test_another_format_is_named():
    files = to_files(STATE)
    content = json.loads(files[STATE_FILE]) | {"format_version": 9}
    with pytest.raises(CheckpointError, match="its format is 9"):
        from_files({**files, STATE_FILE: json.dumps(content).encode()})


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "runs" / "last"
    for step in (1, 2, 3):
        checkpoint.save(target, {**STATE, "step": step})
        assert checkpoint.load(target)["step"] == step


def test_a_save_that_is_cut_at_any_point_leaves_the_old_or_the_new_state(tmp_path, monkeypatch):
    """Every rename and write of a save fails once; what `load` finds is then whole, old or new."""
    import pathlib

    class CutError(Exception):
        pass

    real = {"rename": pathlib.Path.rename, "open": pathlib.Path.open}
    for cut in range(12):
        target = tmp_path / f"run-{cut}" / "last"
        checkpoint.save(target, {**STATE, "step": 1})
        checkpoint.save(target, {**STATE, "step": 2})
        calls = iter(range(100))

        def counted(name, cut=cut, calls=calls):
            def call(self, *args, **kwargs):
                if next(calls) == cut:
                    raise CutError
                return real[name](self, *args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(pathlib.Path, "rename", counted("rename"))
            patch.setattr(pathlib.Path, "open", counted("open"))
            try:
                checkpoint.save(target, {**STATE, "step": 3})
                completed = True
            except CutError:
                completed = False
        assert checkpoint.load(target)["step"] == 3 if completed else checkpoint.load(target)["step"] in (2, 3)
        if completed:
            assert cut > 2  # at least one cut was survived before
            return
    pytest.fail("a save has more than twelve points at which it can be cut")


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.load(tmp_path)
