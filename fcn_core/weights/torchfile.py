"""Reading what torch.save wrote, from people one does not know.

The one thing to know: such a file is a program (a pickle) that builds the tensors. It is never run as one. First the
program is looked through, without executing it, for anything that state_dicts do not need; then PyTorch's
`weights_only` reader, which knows only a list of harmless constructors, reads the rest. Lengths that the file claims
are compared with its size on the way, by us or by PyTorch.
"""

import io
import mmap
import os
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from fcn_core.errors import WeightsError

_HARMLESS = re.compile(
    r"collections (OrderedDict|Counter)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
    r"|torch\.nn\.parameter Parameter"
    r"|torch (Size|device|\w+Storage|float16|float32|float64|bfloat16|int8|int16|int32|int64|uint8|bool)"
    r"|torch\.storage (UntypedStorage|TypedStorage)"
    r"|_codecs encode"
    r"|(__builtin__|builtins) (set|complex)"
)
"""What a state_dict, an optimiser's state and a few plain numbers are made of, as "module name"."""

_IGNORED = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "argparse.Namespace",
    "types.SimpleNamespace",
    *(f"pathlib{local}.{kind}" for local in ("", "._local") for kind in ("Path", "PosixPath", "WindowsPath")),
    *(f"datetime.{kind}" for kind in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "int", "float", "str")),
    "typing.Any",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.base.{kind}" for kind in ("ContainerMetadata", "Metadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Enum", "Float", "Integer", "Path", "String")),
)
_IGNORED_MAPPINGS = (
    "collections.defaultdict",
    *(f"{lightning}.utilities.parsing.AttributeDict" for lightning in ("pytorch_lightning", "lightning.pytorch")),
    *(f"{fabric}.utilities.data.AttributeDict" for fabric in ("lightning.fabric", "lightning_fabric")),
    "yacs.config.CfgNode",
    "easydict.EasyDict",
)
"""What trainers put beside the weights: options, times, paths, numbers of numpy. Nothing of it is made or called: an
empty object stands for each."""

_LARGEST_PICKLE = 64 << 20
_PICKLES_OF_OLD_FILES = 5  # before PyTorch 1.6: magic number, version, platform, the object, names of the storages


class _Ignored:
    """Stands for an object of _IGNORED, such as a best score or a trainer's options. No weights are in one."""

    def __new__(cls, *arguments: object) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _IgnoredMapping:
    """Stands for a mapping of _IGNORED_MAPPINGS: PyTorch's reader fills none but plain ones."""

    def __new__(cls, *arguments: object) -> "OrderedDict[Any, Any]":  # type: ignore[misc]
        return OrderedDict()


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_Ignored, name) for name in _IGNORED),
    *((_IgnoredMapping, name) for name in _IGNORED_MAPPINGS),
]


def load_torch_file(path: Path) -> Any:
    """What the file holds, on the CPU: as a rule a state_dict, or a dict with one in it.

    Nothing in the file is executed. What trainers put beside the weights comes back as empty objects. Raises
    WeightsError, in one sentence, for a file that is damaged or holds Python objects other than tensors in containers.
    """
    try:
        with path.open("rb") as file:
            stranger = _stranger(file)
        if stranger is None:
            with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about strange protocols: the file is read or refused, that is all
                return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise WeightsError(f"{path} claims more values than there is memory for; copy or download it again") from error
    except Exception as error:  # whatever a damaged file makes zipfile, pickletools or PyTorch raise
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{path} is not a readable PyTorch file ({first_line[:120]}); copy or download it again"
        ) from error
    raise WeightsError(
        f"{path} holds Python objects besides tensors ({stranger}), which are never loaded; save the state_dict alone"
        " (torch.save(model.state_dict(), ...)) or as .safetensors"
    )


def _stranger(file: IO[bytes]) -> str | None:
    """The first thing that the file's pickles name and state_dicts do not need, or None. Nothing is unpickled."""
    size = os.fstat(file.fileno()).st_size
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch.save never compresses: so no entry, nor all of them, can be larger than the file.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its parts are compressed, which torch.save never does")
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("its parts overlap")
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > _LARGEST_PICKLE:
                raise ValueError(f"it has {len(pickles)} data.pkl of {sum(entry.file_size for entry in pickles)} bytes")
            return _stranger_in_pickle(io.BytesIO(archive.read(pickles[0])))
    if size == 0:
        raise ValueError("it is empty")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # reads no further than its end
        for _ in range(_PICKLES_OF_OLD_FILES):
            stranger = _stranger_in_pickle(data)
            if stranger is not None or data.tell() > _LARGEST_PICKLE:
                return stranger or "a very long pickle"
    return None


def _stranger_in_pickle(pickle: IO[bytes] | mmap.mmap) -> str | None:
    """The same for one pickle; the file is left behind its end."""
    for opcode, argument, _ in pickletools.genops(pickle):  # type: ignore[arg-type]  # an mmap reads like a file
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            return f"made by {opcode.name}"
        named = str(argument)
        ignored = named.replace(" ", ".").replace("__builtin__.", "builtins.") in _IGNORED + _IGNORED_MAPPINGS
        if opcode.name == "GLOBAL" and not ignored and not _HARMLESS.fullmatch(named):
            return ascii(str(argument)[:100].replace(" ", "."))[1:-1]
    return None
