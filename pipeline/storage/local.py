"""A local folder as a store. A key is a path inside the folder; it can never lead out of it.

Names that are not UTF-8 are listed with their odd bytes written `\\xe9` (and their backslashes `\\x5c`), and
can be read by that key; a file that bears the escaped name literally goes first. Links are followed as the
user laid them, except into a folder that they are in; of a folder that may be a stranger's (see `open_source`),
none that leads out of it. What cannot be an object (a loop, a dangling link, a socket) is logged, not listed.
"""

import contextlib
import errno
import itertools
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fcn_core.text.printable import shortened
from pipeline.errors import (
    AccessDenied,
    InputError,
    LinkRefused,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    PlaceMissing,
    StorageError,
)
from pipeline.storage import durable
from pipeline.storage.create_once import create_once
from pipeline.storage.local_files import escape, fault_of, info_of, open_directory, open_file, regular, stat_of
from pipeline.storage.store import Location, ObjectInfo, StorageOptions, check_size, folder

log = logging.getLogger(__name__)

_LINKS_SAID = 10
_LONGEST_PATH_SAID = 300

_ODD = {
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.ENAMETOOLONG: "path_too_long",
    errno.ELOOP: "too_many_links",
}
"""What may be wrong with one entry alone. A disk or network that fails is more than that."""

_ESCAPE = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")


class LocalStore:
    """See `pipeline.storage.store.Store`. `root` is an absolute path; it need not exist before the first write.

    `within` is the folder that no link leads out of; None follows them all. Of a `source` of images one odd entry does
    not end the listing: it is passed over and logged. An output's listing must be whole.
    """

    def __init__(self, root: str, within: str | None = None, source: bool = False) -> None:
        self._root = os.path.normpath(root)
        self._root_bytes = os.fsencode(self._root)
        self._within = within
        self._is_source = source
        self._bound = None if within is None else os.path.realpath(os.fsencode(within))
        self._said: set[bytes] = set()

    def as_source(self, *, follow_links: bool) -> "LocalStore":
        """The same folder, of which what cannot be listed is passed over. Unless `follow_links`, nothing is listed or
        read that lies behind a link out of it."""
        return LocalStore(self._root, None if follow_links else self._root, source=True)

    @classmethod
    def from_uri(cls, uri: str, options: StorageOptions | None = None) -> "LocalStore":
        """From a path (relative to the current working directory, `~` is expanded) or `file:///percent-encoded`.

        A folder needs none of the options.
        """
        if not uri.lower().startswith("file://"):
            return cls._of_path(os.path.abspath(os.path.expanduser(uri)))
        parts = urlsplit(uri)
        path = unquote(parts.path, errors="surrogateescape")
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise InputError(f"{uri} is not a local folder; write file:///absolute/path.")
        if parts.query or parts.fragment:
            raise InputError(f"{uri}: write '?' as %3F and '#' as %23 in a file:// URI, or give the path as it is.")
        return cls._of_path(path)

    @classmethod
    def _of_path(cls, path: str) -> "LocalStore":
        try:
            path.encode()
        except UnicodeEncodeError:
            # Plans, records and tables, which name it, are UTF-8.
            raise InputError(
                f"{path!r}: the path of this folder is not UTF-8; rename the folder, or reach it by a "
                "link with a plain name (ln -s)"
            ) from None
        return cls(path)

    @property
    def uri(self) -> str:
        return self._root

    @property
    def location(self) -> Location:
        # Resolved, so that a link is no way around.
        return Location("file", "", tuple(part for part in os.path.realpath(self._root).split("/") if part))

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str, str | None, bool]]:
        return LocalStore, (self._root, self._within, self._is_source)

    def at(self, path: str) -> "LocalStore":
        return LocalStore(os.path.join(self._root, folder(path, self._root)), self._within, self._is_source)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if "\0" in prefix:
            raise StorageError(f"{self._root}: {prefix!r} cannot start the name of a file.")
        try:
            found = os.stat(self._root_bytes)
            if not stat.S_ISDIR(found.st_mode):
                raise StorageError(f"{self._root} is not a folder.")
        except FileNotFoundError:
            return  # an output that nothing has been written to yet
        except OSError as error:
            raise fault_of(error, self._root) from error
        yield from self._walk(self._root_bytes, "", prefix, ((found.st_dev, found.st_ino),))

    def _walk(
        self, directory: bytes, above: str, prefix: str, ancestors: tuple[tuple[int, int], ...]
    ) -> Iterator[ObjectInfo]:
        """The objects below `directory`, whose own key is `above` ("" or ending in "/")."""
        try:
            with os.scandir(directory) as entries:
                names = {entry.name: entry.is_symlink() for entry in entries if not durable.ASIDE.fullmatch(entry.name)}
        except FileNotFoundError:
            return  # removed while we were listing
        except OSError as error:
            if above and self._passes_over(error, directory):
                return
            raise fault_of(error, os.fsdecode(directory)) from error
        found: list[tuple[str, bytes, os.stat_result]] = []
        for name, is_link in names.items():
            key = above + escape(name)
            # Only what can hold the prefix is looked at: list("runs/7/") does not walk the masks.
            if not (key.startswith(prefix) or prefix.startswith(key + "/")):
                continue
            path = os.path.join(directory, name)
            # Before anything is asked about what is there: that it may not be looked at is no fault of the folder's.
            if is_link and not self._is_within(os.path.realpath(path)):
                self._say_link(path)
                continue
            try:
                status = stat_of(path)
            except OSError as error:
                if self._passes_over(error, path):
                    continue
                raise fault_of(error, os.fsdecode(path)) from error
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                key += "/"
            elif not stat.S_ISREG(status.st_mode):
                log.warning("not_listed path=%r reason=not_a_file", os.fsdecode(path))
                continue
            found.append((key, path, status))
        # A folder sorts as its name and "/": "a.b" comes before "a/c", as in object storage.
        found.sort(key=lambda item: (item[0].encode(), _is_escaped(item[1])))
        last = ""
        for key, path, status in found:
            if key == last:
                if self._is_source:  # a key means the file that bears it literally, which came first
                    self._pass_over(path, "another_file_has_this_key")
                    continue
                raise StorageError(
                    f"{self._root}: two files would have the key {key!r}, one spelling it, the other by "
                    "bytes that are not UTF-8; rename one."
                )
            last = key
            if not key.endswith("/"):
                if key.startswith(prefix):
                    yield info_of(key, status)
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                log.warning("not_listed path=%r reason=link_to_a_folder_it_is_in", os.fsdecode(path))
                continue
            yield from self._walk(path, key, prefix, (*ancestors, identity))

    def _passes_over(self, error: OSError, path: bytes) -> bool:
        """Whether an entry that cannot be looked at is to be passed over; that is said."""
        reason = _ODD.get(error.errno or 0)
        if not self._is_source or reason is None:
            return False
        self._pass_over(path, reason)
        return True

    def _pass_over(self, path: bytes, reason: str) -> None:
        log.warning("not_listed path=%r reason=%s", shortened(os.fsdecode(path), _LONGEST_PATH_SAID), reason)

    def abandoned(self) -> Iterator[ObjectInfo]:
        """What writers that died left aside below the root: files that listings hide. Links are not followed."""
        for directory, _, names in os.walk(self._root_bytes):
            above = os.path.relpath(directory, self._root_bytes)
            parts = [] if above == b"." else [escape(part) for part in above.split(b"/")]
            for name in sorted(filter(durable.ASIDE.fullmatch, names)):
                path = os.path.join(directory, name)
                try:
                    status = stat_of(path)
                except OSError as error:
                    raise fault_of(error, os.fsdecode(path)) from error
                if status is not None:
                    yield info_of("/".join([*parts, name.decode()]), status)

    def get(
        self, key: str, *, size: int | None = None, etag: str | None = None, most_bytes: int | None = None
    ) -> bytes:
        path = self._existing(key)
        try:
            with open(path, "rb", opener=open_file) as file:
                before = info_of(key, regular(file.fileno(), key))
                self._refuse_behind_link(file.fileno(), key)
                check_size(self._name(key), before.size, most_bytes)
                data = file.read(before.size + 1)  # one more, so that one that grows meanwhile is noticed
                after = info_of(key, os.fstat(file.fileno()))
        except OSError as error:
            raise fault_of(error, self._name(key)) from error
        listed = etag is None or etag == before.etag
        if not listed or (size is not None and size != before.size) or before.etag != after.etag:
            raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
        if len(data) != after.size:
            raise ObjectChanged(f"{self._name(key)} gave {len(data)} bytes where the file has {after.size}.")
        return data

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        path = self._existing(key)
        try:
            with open(path, "rb", opener=open_file) as file:
                before = info_of(key, regular(file.fileno(), key))
                self._refuse_behind_link(file.fileno(), key)
                file.seek(offset)
                data = file.read(length)
                after = info_of(key, os.fstat(file.fileno()))
        except OSError as error:
            raise fault_of(error, self._name(key)) from error
        if etag is not None and not etag == before.etag == after.etag:
            raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
        if len(data) != length:
            raise ObjectChanged(f"{self._name(key)} gave {len(data)} of the {length} bytes from byte {offset}.")
        return data

    def head(self, key: str) -> ObjectInfo:
        path = self._existing(key)
        try:
            status = os.stat(path)
        except OSError as error:
            raise fault_of(error, self._name(key)) from error
        if not stat.S_ISREG(status.st_mode):
            raise ObjectMissing(f"{self._name(key)} is not a file.")
        if not self._is_within(os.path.realpath(path)):
            raise self._behind_link(key)
        return info_of(key, status)

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, os.replace)

    def put_file(self, key: str, path: Path) -> None:
        self._write(key, path, os.replace)

    def create(self, key: str, data: bytes) -> None:
        self._write(key, data, create_once)

    def delete(self, key: str) -> None:
        """Raises AccessDenied for what lies behind a link to a folder: that is not this store's alone."""
        path = self._existing(key)
        *folders, name = os.path.relpath(path, self._root_bytes).split(b"/")
        try:
            with contextlib.ExitStack() as stack:
                parent = open_directory(self._root_bytes, stack)
                for each in folders:
                    # Step by step, so that no link can be put in the way between a look and the deletion.
                    parent = open_directory(each, stack, within=parent)
                os.unlink(name, dir_fd=parent)
            durable.sync_directory(os.path.dirname(path))
        except (FileNotFoundError, NotADirectoryError):
            if self.is_behind_link(key):
                raise AccessDenied(
                    f"{self._name(key)} lies behind a link to another folder, where nothing is deleted; delete it there"
                ) from None
        except OSError as error:
            raise fault_of(error, self._name(key), "cannot be deleted") from error

    def is_behind_link(self, key: str) -> bool:
        """Whether the way from the root to this key leads through a link, so that it may be another store's too."""
        *folders, _ = os.path.relpath(self._existing(key), self._root_bytes).split(b"/")
        return any(
            os.path.islink(path)
            for path in itertools.accumulate(folders, os.path.join, initial=self._root_bytes)
            if path != self._root_bytes
        )

    def check_readable(self) -> None:
        if not os.path.lexists(self._root_bytes):
            raise PlaceMissing(f"{self._root} does not exist; create the folder or correct the path.")
        if not os.path.isdir(self._root_bytes):
            raise PlaceMissing(f"{self._root} is not a folder; correct the path.")
        try:
            with os.scandir(self._root_bytes) as entries:
                next(entries, None)
        except OSError as error:
            raise fault_of(error, self._root) from error

    def check_writable(self) -> None:
        # Folders are made on the first write, so what must be writable is the nearest one that is there.
        folder_there = self._root_bytes
        while not os.path.lexists(folder_there):
            folder_there = os.path.dirname(folder_there)
        check = os.path.join(folder_there, b".fcn-check-" + secrets.token_hex(16).encode())
        try:
            # All that a write does, so that what a file system cannot do is known before any work.
            aside = durable.write_aside(folder_there, b"")
            try:
                create_once(aside, check)
                os.unlink(check)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
            durable.sync_directory(folder_there)
        except OSError as error:
            raise fault_of(error, self._root, "cannot be written to") from error

    def _write(self, key: str, data: bytes | Path, into_place: Callable[[bytes, bytes], None]) -> None:
        path = self._path(key)
        if durable.ASIDE.fullmatch(os.path.basename(path)):
            raise StorageError(f"{self._name(key)}: names of this form are kept for files being written.")
        try:
            durable.make_directories(os.path.dirname(path))
            aside = durable.write_aside(os.path.dirname(path), data)
            try:
                into_place(aside, path)
            except FileExistsError:
                if os.path.isdir(path):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                raise ObjectExists(f"{self._name(key)} exists already.") from None
            finally:
                # Gone already after os.replace; still there after os.link or a failure.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
            durable.sync_directory(os.path.dirname(path))
        except OSError as error:
            raise fault_of(error, self._name(key), "cannot be written") from error

    def _path(self, key: str) -> bytes:
        """Where a key is written. Raises StorageError for a key that no file inside the root can have."""
        if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
            raise StorageError(
                f"{self._root}: {key!r} cannot name a file in this folder (an absolute path, or an empty, "
                "'.', '..' or NUL part)."
            )
        try:
            return os.path.join(self._root_bytes, key.encode())
        except UnicodeEncodeError:
            raise StorageError(f"{self._root}: {key!r} is not valid Unicode.") from None

    def _existing(self, key: str) -> bytes:
        """Where a key is read: as spelled, else, part by part, as the escaped form of a name that is not
        UTF-8.
        """
        path = self._path(key)
        if "\\x" not in key or os.path.lexists(path):
            return path
        path = self._root_bytes
        for part in key.encode().split(b"/"):
            literal = os.path.join(path, part)
            raw = _ESCAPE.sub(lambda match: bytes.fromhex(match.group(1).decode()), part)
            # An escape may not smuggle in what a key may not hold; only real escapes of a name are undone.
            escaped = not os.path.lexists(literal) and escape(raw).encode() == part
            path = os.path.join(path, raw) if escaped else literal
        return path

    def _is_within(self, real: bytes) -> bool:
        """Whether a path without links in it is one that may be read."""
        bound = self._bound
        return bound is None or real == bound or real.startswith(os.path.join(bound, b""))

    def _refuse_behind_link(self, descriptor: int, key: str) -> None:
        """Asks about the file that is open, so that no link can be put in the way between a look and the reading."""
        if self._bound is not None and not self._is_within(os.readlink(b"/proc/self/fd/%d" % descriptor)):
            raise self._behind_link(key)

    def _behind_link(self, key: str) -> LinkRefused:
        return LinkRefused(
            f"{self._name(key)} lies behind a link that leads out of {self._within}; --follow-links reads it"
        )

    def _say_link(self, path: bytes) -> None:
        """One line a link, once, and no more than a person reads."""
        if path in self._said or len(self._said) > _LINKS_SAID:
            return
        self._said.add(path)
        if len(self._said) > _LINKS_SAID:
            log.warning("not_listed more=true reason=link_out_of_the_folder remedy=--follow-links")
        else:
            log.warning("not_listed path=%r reason=link_out_of_the_folder remedy=--follow-links", os.fsdecode(path))

    def _name(self, key: str) -> str:
        return f"{self._root}/{key}"


def _is_escaped(path: bytes) -> bool:
    try:
        path.rpartition(b"/")[2].decode()
    except UnicodeDecodeError:
        return True
    return False
