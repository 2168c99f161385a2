"""Files of this machine by descriptors and bytes of their names, and what goes wrong with them in words."""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from datetime import UTC, datetime

from pipeline.errors import (
    AccessDenied,
    NameRefused,
    ObjectMissing,
    StorageError,
)
from pipeline.storage.store import ObjectInfo

log = logging.getLogger(__name__)


def escape(name: bytes) -> str:
    """A file name as (part of) a key: itself where it is UTF-8, else with backslash escapes; no two names
    share one.
    """
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.replace(b"\\", b"\\x5c").decode(errors="backslashreplace")


def stat_of(path: bytes) -> os.stat_result | None:
    """Follows links; None (and a line in the log if it is no plain race) for what is not there. Raises OSError."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise
        if os.path.islink(path):
            log.warning("not_listed path=%r reason=dangling_link", os.fsdecode(path))
        return None


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    # mtime and size, not the inode: the etag survives a copy that keeps times (cp -p, rsync -a).
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
    return ObjectInfo(key, etag, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def open_file(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe would wait for a writer for ever.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    return descriptor


def regular(descriptor: int, key: str) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ObjectMissing(f"{key} is not a file.")
    return status


def open_directory(name: bytes, stack: contextlib.ExitStack, within: int | None = None) -> int:
    """A descriptor of a folder, closed with `stack`. Inside another one no link is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if within is None else os.O_NOFOLLOW)
    descriptor = os.open(name, flags, dir_fd=within)
    stack.callback(os.close, descriptor)
    return descriptor


def fault_of(error: OSError, name: str, trouble: str = "cannot be read") -> StorageError:
    """The operating system's refusal as one sentence."""
    reading = trouble == "cannot be read"
    match error.errno:
        case errno.ENOENT:
            return ObjectMissing(f"{name} does not exist.")
        case errno.ENOTDIR | errno.EISDIR | errno.ENAMETOOLONG if reading:
            return ObjectMissing(f"{name} is not a file.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessDenied(f"{name} {trouble}: {error.strerror}; check its owner, permissions and mount.")
        case errno.ENOTDIR | errno.EISDIR:
            return NameRefused(f"{name} {trouble}: a file stands where a folder is needed, or a folder for a file.")
        case errno.ENOSPC | errno.EDQUOT:
            return StorageError(f"{name} {trouble}: the disk is full or over quota.")
        case errno.ENAMETOOLONG:
            return NameRefused(f"{name} {trouble}: the name is too long for this file system.")
        case errno.EOPNOTSUPP | errno.ENOSYS:
            return StorageError(
                f"{name} {trouble}: this file system can create no file only where none is (it has neither hard links "
                "nor a rename that replaces nothing), which commits need; choose a folder on another one."
            )
        case _:
            return StorageError(f"{name} {trouble}: {error.strerror or type(error).__name__}.")
