"""A bounded folder of files fetched from storage, shared by all processes of a machine.

A file's name is the hash of what it is (object and etag), so an entry never goes stale and nobody overwrites another's.
It is written aside, renamed into place, and carries its length and checksum: one that was cut short is fetched again.
When the folder would grow past its limit, the files that were not used for longest go. One lock file orders all that
adds or removes; reading takes no lock, since a file that is being read outlives its name.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import InputError

log = logging.getLogger(__name__)

_HEADER = struct.Struct("<4sIQ")  # magic, CRC-32 of the content, its length
_MAGIC = b"FCN1"
_LOCK = ".fcn-cache-lock"
_ASIDE = ".fcn-aside-"
_OURS = re.compile(r"[0-9a-f]{40}|\.fcn-aside-[0-9a-f]{32}")
_ASIDE_SECONDS = 3600.0
"""What is written aside for longer than this was left by a process that died."""


class FileCache:
    """At most `limit_bytes` of files below `folder`, besides what is just being written. Can be pickled.

    Without a folder, it is one among the temporary files of the machine where the cache is used. A folder that cannot
    be written to, or is full, makes fetching slower, never wrong: it is logged once, and bytes are passed on uncached.
    """

    def __init__(self, folder: str | None, limit_bytes: int) -> None:
        # Absolute: what this is sent to runs in another folder.
        self.folder = os.path.abspath(folder) if folder else folder
        self.limit_bytes = limit_bytes
        self._found: str | None = self.folder
        self._complained = False

    def __reduce__(self) -> tuple[type["FileCache"], tuple[str | None, int]]:
        return FileCache, (self.folder, self.limit_bytes)

    def get(self, identity: str, fetch: Callable[[], bytes]) -> bytes:
        """The bytes that `identity` stands for, for ever: from the folder, else from `fetch`, which is then kept."""
        name = hashlib.blake2b(identity.encode(errors="surrogatepass"), digest_size=20).hexdigest()
        path = os.path.join(self._root(), name[:2], name)
        data = self._load(path)
        if data is None:
            data = fetch()
            self._keep(path, data)
        return data

    def prepare(self) -> None:
        """Make the folder. Raises InputError when it cannot be used."""
        root = self._root()
        try:
            os.makedirs(root, exist_ok=True)
            with self._lock():
                pass
        except OSError as error:
            raise InputError(
                f"the cache folder {root} cannot be used ({error.strerror}); choose another with --cache"
            ) from error

    def _root(self) -> str:
        if self._found is None:
            self._found = temporary_cache_folder()
        return self._found

    def _load(self, path: str) -> bytes | None:
        try:
            with open(path, "rb") as file:
                header, data = file.read(_HEADER.size), file.read()
            if len(header) == _HEADER.size and _HEADER.unpack(header) == (_MAGIC, zlib.crc32(data), len(data)):
                os.utime(path, ns=(time.time_ns(),) * 2)  # used just now
                return data
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
            return None
        log.warning("damaged_cache_file path=%r", path)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None

    def _keep(self, path: str, data: bytes) -> None:
        size = _HEADER.size + len(data)
        if size > self.limit_bytes:
            return
        aside = os.path.join(self._root(), _ASIDE + secrets.token_hex(16))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                with open(aside, "xb") as file:
                    file.write(_HEADER.pack(_MAGIC, zlib.crc32(data), len(data)))
                    file.write(data)
                self._move_in(aside, path, size)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)  # gone already once it is in place
        except OSError as error:
            self._complain(error)

    def _move_in(self, aside: str, path: str, size: int) -> None:
        with self._lock() as total:
            if os.path.exists(path):
                return  # another process fetched it, too
            used = total.read()
            if used is None or used + size > self.limit_bytes:
                # A tenth more than is needed goes, so that not every new file looks through the whole folder.
                used = self._shrink(min(self.limit_bytes - size, self.limit_bytes * 9 // 10))
            # Counted first: dying in between leaves the count too high, which the next look corrects.
            total.write(used + size)
            os.replace(aside, path)

    def _shrink(self, target: int) -> int:
        """Remove what was not used for longest until at most `target` bytes are left; returns how many are."""
        files: list[tuple[int, int, str]] = []
        for path, status in self._files():
            if os.path.basename(path).startswith(_ASIDE):
                if time.time() - status.st_mtime > _ASIDE_SECONDS:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
            else:
                files.append((status.st_mtime_ns, status.st_size, path))
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= target:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            left -= size
        return left

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        """What this class has written there, and nothing else: the folder may hold other people's files."""
        root = self._root()
        for directory in (root, *(os.path.join(root, f"{byte:02x}") for byte in range(256))):
            with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
                for entry in entries:
                    if _OURS.fullmatch(entry.name):
                        with contextlib.suppress(FileNotFoundError):
                            yield entry.path, entry.stat(follow_symlinks=False)

    @contextmanager
    def _lock(self) -> Iterator["_Total"]:
        descriptor = os.open(os.path.join(self._root(), _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # of this descriptor: it holds between threads, too
            yield _Total(descriptor)
        finally:
            os.close(descriptor)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning("cache_not_used folder=%r error=%r", self._root(), error.strerror)


@dataclass(frozen=True)
class _Total:
    """How many bytes the folder holds, as noted in the lock file."""

    descriptor: int

    def read(self) -> int | None:
        text = os.pread(self.descriptor, 32, 0)
        return int(text) if text.isdigit() else None

    def write(self, value: int) -> None:
        os.pwrite(self.descriptor, b"%032d" % value, 0)


def temporary_cache_folder() -> str:
    """This user's cache folder among the temporary files, made if need be. Raises InputError if somebody else's."""
    path = os.path.join(tempfile.gettempdir(), f"fcn-cache-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
    except OSError as error:
        raise InputError(f"the cache folder {path} cannot be made ({error.strerror}); give one with --cache") from error
    # A stranger who made it first could plant files in it.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise InputError(f"the cache folder {path} is not this user's alone; remove it, or give another with --cache")
    return path
