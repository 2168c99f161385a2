"""Files and folders that are still there after a power cut: what every write to a local folder is made of."""

import contextlib
import errno
import os
import re
import secrets
from io import FileIO
from pathlib import Path

ASIDE = re.compile(rb"\.fcn-[0-9a-f]{32}\.tmp")
"""What a writer that died may leave: hidden from listings, and too long a random name to meet a user's own."""

_DURABLE: set[bytes] = set()
"""Folders whose names this process has brought to the disk."""

_MANY_FOLDERS = 1 << 16

_COPIED_AT_ONCE = 1 << 23


def write_aside(directory: bytes, data: bytes | Path) -> bytes:
    """Bring `data` to the disk in a file of a name of its own in `directory`; returns its path.

    Of a Path it is what that file holds, which need not fit in memory.
    """
    path = os.path.join(directory, b".fcn-" + secrets.token_hex(16).encode() + b".tmp")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    while part := source.read(_COPIED_AT_ONCE):
                        _write_all(file, part)
            else:
                _write_all(file, data)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    return path


def _write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take less at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def make_directories(directory: bytes) -> None:
    """Have a folder that a power cut does not take away again.

    That it is there does not say so: another thread, or process, may have made it just now and not yet brought its name
    to the disk. So each process does that once for every folder it writes into.
    """
    is_there = os.path.isdir(directory)
    if is_there and directory in _DURABLE:
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        make_directories(parent)
        if not is_there:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory)
        try:
            sync_directory(parent)
        except OSError as error:
            # Far above, folders may be closed to us, or be of a kind that cannot be asked; they have long been there.
            if not is_there or error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL):
                raise
    if len(_DURABLE) >= _MANY_FOLDERS:
        _DURABLE.clear()
    _DURABLE.add(directory)


def sync_directory(directory: bytes) -> None:
    """A new name is only safe from a power cut once its folder has reached the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that have nothing to bring to the disk
            raise
    finally:
        os.close(descriptor)
