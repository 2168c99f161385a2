"""Gives a written file its name unless the name is taken: what create-only writes to a local folder rest on.

A hard link does that on most file systems, network ones included. Those of memory cards (vfat, exFAT) have no links,
but a rename that replaces nothing.
"""

import ctypes
import errno
import os

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1  # linux/fs.h


def create_once(written: bytes, path: bytes) -> None:
    """Have the file `written` at `path`, too, or instead. Raises FileExistsError where something is there."""
    try:
        os.link(written, path)
    except FileExistsError:
        # On NFS a link whose answer was lost is asked for again, and hears that it is there: it is ours.
        if not _is_same(written, path):
            raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_once(written, path)


def _is_same(written: bytes, path: bytes) -> bool:
    ours, there = os.stat(written), os.lstat(path)
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def _rename_once(written: bytes, path: bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, written, _AT_FDCWD, path, ctypes.c_uint(_RENAME_NOREPLACE)) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        number = errno.EOPNOTSUPP
    raise OSError(number, os.strerror(number), os.fsdecode(path))
