"""JSON from a stranger is a value of bounded size and depth, or one sentence, wherever it is read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError, CheckpointError, LabelError
from fcn_core.labels import find_labels, parse_labels
from fcn_core.models.description import LARGEST_DESCRIPTION, MODEL_FILE, WEIGHTS_FILE, parse_description
from fcn_core.text.json_text import DEEPEST, LARGEST_BYTES, LONGEST_NUMBER, parse_json
from fcn_core.training import checkpoint
from tests.fcn_core.nets import small_bundle

HOSTILE = {
    "100,000 lists": (b"[" * 100_000, "nested more than 100 deep"),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 100 deep"),
    "one level too many": (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "nested more than 100 deep"),
    "a number of a million digits": (b"9" * 1_000_000, "a number of 1000000 digits"),
    "a float of a million digits": (b"0." + b"9" * 1_000_000, "a number of 1000002 digits"),
    "a float beyond all": (b"1e999", "1e999 is larger than any number"),
    "no number": (b"NaN", "NaN is no number of JSON"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "surrogates not allowed"),
    "half a surrogate pair as a key": (b'{"\\ud800": 1}', "surrogates not allowed"),
    "another encoding": ('{"a": 1}'.encode("utf-16"), "can't decode"),
    "too much": (b" " * (LARGEST_BYTES + 1), f"{LARGEST_BYTES + 1} bytes, over {LARGEST_BYTES}"),
    "nothing": (b"", "Expecting value"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_nobody_means_is_one_sentence(case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message) as refusal:
        parse_json(data)
    assert len(str(refusal.value)) < 300


def test_what_is_meant_comes_through() -> None:
    assert parse_json(b'{"a": [1, -2.5, true, null, "\\u00e9\\ud83d\\ude00"]}') == {"a": [1, -2.5, True, None, "é😀"]}
    assert parse_json(b"\xef\xbb\xbf{}") == {}, "as Windows' editors begin a text"
    deep = b"[" * DEEPEST + b"]" * DEEPEST
    assert parse_json(deep)
    assert parse_json(b"9" * LONGEST_NUMBER) == int("9" * LONGEST_NUMBER)


def _state(data: bytes) -> object:
    return checkpoint.from_files({checkpoint.STATE_FILE: data, checkpoint.TENSORS_FILE: b""})


READERS: dict[str, tuple[Callable[[bytes], object], type[Exception]]] = {
    "model.json": (lambda data: parse_description(data, "bundle"), BundleError),
    "a label set": (lambda data: parse_labels(data, "labels.json"), LabelError),
    "a checkpoint": (_state, CheckpointError),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "too much"])
def test_every_reader_says_so_in_a_sentence_of_its_own(reader: str, case: str) -> None:
    read, error = READERS[reader]
    with pytest.raises(error) as refusal:
        read(HOSTILE[case][0])
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500


def test_notes_that_are_nested_deeply_are_refused_as_the_bundle_is_read() -> None:
    files = small_bundle("fcn32s", backbone="alexnet").to_files()
    text = files[MODEL_FILE].replace(b'"provenance": {}', b'"provenance": {"a": ' + b"[" * 900 + b"]" * 900 + b"}")
    assert text != files[MODEL_FILE]
    with pytest.raises(BundleError, match=r"model.json is not JSON \(values nested more than 100 deep\)"):
        ModelBundle.from_files({**files, MODEL_FILE: text})


def test_a_head_of_a_billion_channels_is_refused() -> None:
    text = small_bundle("fcn32s", backbone="alexnet").to_files()[MODEL_FILE]
    with pytest.raises(BundleError, match=r"architecture.head_width: .* less than or equal to 65536"):
        parse_description(text.replace(b'"head_width": 16', b'"head_width": 1000000000000'), "bundle")


def test_files_larger_than_their_network_can_need_are_not_read(tmp_path: Path) -> None:
    """They are holes: reading one would take all memory."""
    small_bundle("fcn32s", backbone="alexnet").save(tmp_path / "model")
    with (tmp_path / "model" / WEIGHTS_FILE).open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(BundleError, match=rf"{WEIGHTS_FILE} has 4398046511104 bytes, over the \d+ that it may have"):
        ModelBundle.load(tmp_path / "model")
    with (tmp_path / "model" / MODEL_FILE).open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(BundleError, match=rf"{MODEL_FILE} has 4398046511104 bytes, over the {LARGEST_DESCRIPTION}"):
        ModelBundle.load(tmp_path / "model")
    with (tmp_path / "labels.json").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(LabelError, match="is not JSON"):
        find_labels(str(tmp_path / "labels.json"))
