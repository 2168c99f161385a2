"""A bundle's files in a folder of this machine: written so that no reader sees half of them, read within bounds."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fcn_core.errors import BundleError
from fcn_core.models.description import LARGEST_DESCRIPTION, MODEL_FILE, REMEDY, WEIGHTS_FILE, parse_description
from fcn_core.text.json_text import parse_json


def write_bundle(target: Path, files: Mapping[str, bytes], model_id: str, *, overwrite: bool) -> None:
    """Write `files`, by name, as `ModelBundle.save` promises; the last of them is model.json. Raises BundleError if
    another model than `model_id` is there and overwrite is False."""
    existing = [name for name in files if (target / name).exists()]
    if existing and not overwrite and _stored_model_id(target) != model_id:
        raise BundleError(f"{target} already holds another model; choose another folder or pass overwrite=True")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            staged = Path(aside) / target.name
            staged.mkdir()
            for name, content in files.items():
                _write_durably(staged / name, content)
            if not target.exists():
                staged.rename(target)
            else:
                for name in files:  # the weights come first
                    (staged / name).replace(target / name)
    except OSError as error:
        raise BundleError(f"cannot write the model bundle {target} ({error}); check the path and its rights") from error


def read_bundle(source: Path) -> dict[str, bytes]:
    """File name to content, of those files that are there. Raises BundleError where `source` is no folder, a file
    cannot be read or is larger than its network can need, or model.json is damaged."""
    if not source.is_dir():
        raise BundleError(f"{source} is not a folder; give the folder that holds {MODEL_FILE} and {WEIGHTS_FILE}")
    files = {}
    text = _read_file(source / MODEL_FILE, LARGEST_DESCRIPTION)
    if text is not None:
        files[MODEL_FILE] = text
        description = parse_description(text, str(source))
        for name in (*description.other_files, *description.notes_files):
            content = _read_file(source / name, description.most_bytes_of(name))
            if content is not None:
                files[name] = content
    return files


def _read_file(path: Path, most_bytes: int) -> bytes | None:
    """None where there is none: `ModelBundle.from_files` says what is missing."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read() if size <= most_bytes else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error}); check its rights") from error
    if content is None:
        raise BundleError(f"{path} has {size} bytes, over the {most_bytes} that it may have; {REMEDY}")
    return content


def _stored_model_id(directory: Path) -> str | None:
    try:
        values = parse_json(_read_file(directory / MODEL_FILE, LARGEST_DESCRIPTION) or b"")
    except (BundleError, ValueError):
        return None
    return values.get("model_id") if isinstance(values, dict) else None


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
