"""Caffe models are read as written, and whatever else is in a file costs one sentence and little memory."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcn_core.errors import WeightsError
from fcn_core.weights.caffemodel import CaffeLayer, caffe_tensors, read_caffemodel
from tests.fcn_core.weights.caffe_files import blob, bytes_blob, field, layer, net, varint


def ramp(*shape: int) -> torch.Tensor:
    """Distinct values that float32 holds exactly."""
    count = torch.Size(shape).numel()
    return (torch.arange(count, dtype=torch.float32) / 8 - 3).reshape(shape)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "net.caffemodel"
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_caffemodel(path)
    message = str(caught.value)
    assert message.startswith(str(path)) or "cannot read" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("style", ["v2", "v1"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_what_is_written_is_read(tmp_path: Path, style: str, legacy: bool, packed: bool, double: bool) -> None:
    weight, bias = ramp(4, 3, 2, 5), ramp(4)
    blobs = [blob(tensor, legacy=legacy, packed=packed, double=double) for tensor in (weight, bias)]
    kind = "Convolution" if style == "v2" else 4
    path = write(tmp_path, net([layer("conv1_1", kind, blobs, style), layer("relu", kind, [], style)]))  # type: ignore[arg-type]
    (found,) = read_caffemodel(path)
    assert found.name == "conv1_1"
    assert found.blobs[0].dtype == torch.float32
    assert torch.equal(found.blobs[0], weight)
    assert found.blobs[1].shape == ((1, 1, 1, 4) if legacy else (4,))
    assert torch.equal(caffe_tensors((found,))["conv1_1.bias"], bias)


def test_layers_keep_their_order_and_third_blobs_a_name(tmp_path: Path) -> None:
    content = net([layer(name, "BatchNorm", [blob(ramp(2))] * 3) for name in ("b", "a")])
    names = list(caffe_tensors(read_caffemodel(write(tmp_path, content))))
    assert names == ["b.weight", "b.bias", "b.blob2", "a.weight", "a.bias", "a.blob2"]


def test_a_blob_without_a_shape_is_a_scalar(tmp_path: Path) -> None:
    content = net([layer("scale", "Scale", [field(5, 2, bytes(4))])])
    assert read_caffemodel(write(tmp_path, content))[0].blobs[0].shape == ()


def test_a_bias_of_one_channel_keeps_its_axis() -> None:
    layers = (CaffeLayer("score", (ramp(1, 8, 1, 1), ramp(1, 1, 1, 1))),)
    assert caffe_tensors(layers)["score.bias"].shape == (1,)


def reads_or_refuses(path: Path) -> tuple[CaffeLayer, ...] | None:
    """The layers of a file, or None where it is refused, in one line."""
    try:
        layers = read_caffemodel(path)
    except WeightsError as error:
        if "\n" in str(error):
            raise
        return None
    assert all(entry.name and entry.blobs for entry in layers)
    assert sum(tensor.numel() for entry in layers for tensor in entry.blobs) <= path.stat().st_size
    return layers


def small_file() -> bytes:
    return net(
        [
            layer("conv", "Convolution", [blob(ramp(2, 3, 1, 1)), blob(ramp(2))]),
            layer("fc", 14, [blob(ramp(3, 2))], "v1"),
        ]
    )


def test_cut_at_every_byte_is_refused_or_holds_whole_layers(tmp_path: Path) -> None:
    content = small_file()
    path = write(tmp_path, content)
    whole = {entry.name: entry.blobs for entry in read_caffemodel(path)}
    accepted = 0
    for end in range(len(content)):
        path.write_bytes(content[:end])
        layers = reads_or_refuses(path)
        if layers is None:
            continue
        accepted += 1
        assert [entry.name for entry in layers] == ["conv"]
        assert all(torch.equal(a, b) for a, b in zip(layers[0].blobs, whole["conv"], strict=True))
    assert accepted == 1, "only exactly between the two layers is the rest a sound file"


HUGE = varint((1 << 64) - 1)
HOSTILE = {
    "a length beyond the file": varint(100 << 3 | 2) + varint(1 << 40),
    "the largest length": varint(100 << 3 | 2) + HUGE,
    "a number without end": b"\xff" * 40,
    "field number zero": field(0, 0, varint(1)),
    "field number too large": field(1 << 29, 0, varint(1)),
    "groups": field(1, 3, b""),
    "an unknown wire type": field(1, 7, b""),
    "a layer that is a number": field(100, 0, varint(7)),
    "a name that is a number": field(100, 2, field(1, 0, varint(7))),
    "a blob that is a number": field(100, 2, field(7, 0, varint(7))),
    "a shape that is a number": net([layer("x", "y", [field(7, 0, varint(3)) + field(5, 2, bytes(12))])]),
    "data that is a number": net([layer("x", "y", [field(5, 0, varint(3))])]),
    "float data one by one as doubles": net([layer("x", "y", [field(5, 1, bytes(8))])]),
    "a legacy dimension that is text": net([layer("x", "y", [field(1, 2, b"abc") + field(5, 2, bytes(4))])]),
    "a dimension that is a float": net([layer("x", "y", [field(7, 2, field(1, 5, bytes(4))) + field(5, 2, bytes(4))])]),
    "a shape larger than its data": net([layer("x", "y", [bytes_blob(varint(1 << 40), bytes(4))])]),
    "a negative dimension": net([layer("x", "y", [bytes_blob(HUGE, bytes(4))])]),
    "dimensions whose product overflows": net(
        [layer("x", "y", [bytes_blob(varint(1 << 32) * 2, bytes(4))])]
    ),
    "too many dimensions": net([layer("x", "y", [bytes_blob(varint(1) * 33, bytes(4))])]),
    "half a value": net([layer("x", "y", [bytes_blob(varint(1), bytes(3))])]),
    "no values": net([layer("x", "y", [field(7, 2, field(1, 2, varint(0)))])]),
    "a layer without a name": net([layer("", "y", [blob(ramp(1))])]),
    "a name that clears the screen": net([layer("\x1b[2J", "y", [blob(ramp(1))])]),
    "a name that is not text": field(100, 2, field(1, 2, b"\xff\xfe") + field(7, 2, blob(ramp(1)))),
    "an endless name": net([layer("x" * 257, "y", [blob(ramp(1))])]),
    "two layers of one name": net([layer("x", "y", [blob(ramp(1))])] * 2),
    "nine blobs": net([layer("x", "y", [blob(ramp(1))] * 9)]),
    "a layer of 2013": field(2, 2, field(1, 2, field(1, 2, b"conv1"))),
    "no layers": net([]),
    "nothing": b"",
    "a web page": b"<!DOCTYPE html><html><body>404</body></html>",
    "a pickle": b"\x80\x04\x95\x1a\x00\x00\x00cos\nsystem\n(S'true'\ntR.",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    assert len(refused(write(tmp_path, HOSTILE[what]))) < 400 + len(str(tmp_path))


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.caffemodel")
    assert "Is a directory" in refused(tmp_path)


def peak_of_reading(path: Path) -> int:
    """The largest number of bytes that Python and numpy held at once while the file was read."""
    tracemalloc.start()
    try:
        read_caffemodel(path)
    except WeightsError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_stays_in_proportion_to_the_file(tmp_path: Path) -> None:
    megabyte = 1 << 20
    files = {
        "honest": net([layer("x", "y", [bytes_blob(varint(megabyte), bytes(4 * megabyte))])]),
        "doubles": net([layer("x", "y", [bytes_blob(varint(megabyte), b"") + field(8, 2, bytes(8 * megabyte))])]),
        "empty layers": field(100, 2, b"") * (megabyte // 3),
        "tiny blobs": net([layer(f"l{i}", "y", [field(5, 2, bytes(4))] * 8) for i in range(1000)]),
        "dimensions": net([layer("x", "y", [field(7, 2, field(1, 2, varint(1) * megabyte))])]),
        "many shapes": net([layer("x", "y", [field(7, 2, field(1, 2, varint(1) * 32)) * (megabyte // 1000)])]),
    }  # fmt: skip
    for what, content in files.items():
        peak = peak_of_reading(write(tmp_path, content))
        assert peak < 3 * len(content) + 16 * megabyte, what


def test_a_claim_of_a_terabyte_is_refused_under_a_hard_memory_limit(tmp_path: Path) -> None:
    claims = [
        HOSTILE[what] for what in ("a length beyond the file", "the largest length", "a shape larger than its data")
    ]
    paths = []
    for index, content in enumerate(claims):
        paths.append(tmp_path / f"{index}.caffemodel")
        paths[-1].write_bytes(content)
    script = (
        "import resource, sys\n"
        "from fcn_core.weights.caffemodel import read_caffemodel\n"
        "from fcn_core.errors import WeightsError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read_caffemodel(path)\n"
        "    except WeightsError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["refused"] * len(paths), done.stderr


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "net.caffemodel"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    reads_or_refuses(scratch)


def messages(depth: int) -> st.SearchStrategy[bytes]:
    """Well-formed fields of any content, with the numbers that mean something to the reader most of the time."""
    number = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 100]) | st.integers(1, 1 << 20)
    payload = st.binary(max_size=12) if depth == 0 else st.binary(max_size=12) | messages(depth - 1)
    one = st.one_of(
        st.builds(lambda n, v: field(n, 0, varint(v)), number, st.integers(0, 20)),
        st.builds(lambda n, v: field(n, 2, v), number, payload),
        st.builds(lambda n, v: field(n, 5, v), number, st.binary(min_size=4, max_size=4)),
    )
    return st.lists(one, max_size=4).map(b"".join)


@given(st.lists(messages(3).map(lambda body: field(100, 2, body)), max_size=3).map(b"".join))
def test_any_messages_are_read_or_refused(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    reads_or_refuses(scratch)


@given(st.data())
def test_any_damage_to_a_sound_file_is_read_or_refused(scratch: Path, data: st.DataObject) -> None:
    content = bytearray(small_file())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(bytes(content))
    reads_or_refuses(scratch)
