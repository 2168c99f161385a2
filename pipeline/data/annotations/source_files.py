"""The files of an annotation source: a folder or bucket, a zip archive, or one JSON file.

The one thing to know: a source may be hostile. Nothing is ever unpacked to the disk; a name that leads out of the
source, a link, and an entry that unpacks to more than it may are refused by name; every read has a limit.
"""

import json
import posixpath
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol, cast

from fcn_core.text.json_text import parse_json
from fcn_core.text.printable import printable
from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.sources.opening import open_source
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from pipeline.storage.uri import scheme_of, split_uri

LARGEST_JSON = 256 << 20
LARGEST_MASK = 128 << 20
LARGEST_IMAGE = 512 << 20
MOST_FILES = 2_000_000

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".heic")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "leftimg8bit")
"""What people call a folder of images, in lower case."""

_PIECE = 64 << 20
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError)


class Container(Protocol):
    """Where the files are."""

    def names(self) -> Sequence[str]:
        """All names, sorted."""

    def read(self, name: str, most_bytes: int) -> bytes:
        """The bytes of one. Raises StorageError for one that is not there, damaged, or has more than `most_bytes`."""


class SourceFiles:
    """The files of one source. `uri`: as a person called it. `refused`: (name, why) of what was not looked at."""

    def __init__(self, uri: str, container: Container, refused: Sequence[tuple[str, str]] = (), root: str = "") -> None:
        self.uri = uri
        self.refused = tuple(refused)
        self._container = container
        self._root = root
        names = (name.removeprefix(root) for name in container.names() if name.startswith(root))
        self.names: tuple[str, ...] = tuple(name for name in names if not _is_clutter(name))
        self._there = frozenset(self.names)
        self._json: tuple[str, Any] | None = None
        self._by_base: dict[str, list[str]] | None = None
        self._by_stem: dict[str, list[str]] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._there

    def ending(self, suffix: str) -> list[str]:
        """The names with this ending, in any case."""
        return [name for name in self.names if name.lower().endswith(suffix)]

    def read(self, name: str, most_bytes: int) -> bytes:
        """Raises StorageError; see Container."""
        return self._container.read(self._root + name, most_bytes)

    def text(self, name: str, most_bytes: int = 8 << 20) -> str:
        """A text file in UTF-8. Raises InputError."""
        try:
            return self.read(name, most_bytes).decode("utf-8-sig")
        except (StorageError, UnicodeDecodeError) as error:
            raise InputError(f"{self.uri}: {printable(name)} cannot be read as text in UTF-8 ({error})") from error

    def json(self, name: str) -> Any:
        """The value of a JSON file; the last one asked for is kept. Raises InputError."""
        if self._json is None or self._json[0] != name:
            self._json = None
            try:
                value = parse_json(self.read(name, LARGEST_JSON), most_bytes=LARGEST_JSON)
            except StorageError as error:
                raise InputError(f"{self.uri}: {error}") from error
            except ValueError as error:
                raise InputError(f"{self.uri}: {printable(name)} is not JSON ({error})") from error
            self._json = (name, value)
        return self._json[1]

    def inside(self) -> "SourceFiles | None":
        """The same files below the one folder that all of them are in, as archives often have it; else None."""
        tops = {name.partition("/")[0] for name in self.names}
        if len(tops) != 1 or any("/" not in name for name in self.names):
            return None
        return SourceFiles(self.uri, self._container, self.refused, f"{self._root}{tops.pop()}/")

    def images(self) -> Iterator[str]:
        """The names that an image could have."""
        return (name for name in self.names if name.lower().endswith(_IMAGES))

    def image(self, name: str) -> str | None:
        """The image file that an annotation calls `name`: that path, also below a folder such as images/, or the
        only one that ends in it, or the only one of that file name. None where there is none, or several."""
        if self._by_base is None:
            self._by_base = {}
            for each in self.images():
                self._by_base.setdefault(posixpath.basename(each), []).append(each)
        name = posixpath.normpath(name.replace("\\", "/")).lstrip("/")
        same = self._by_base.get(posixpath.basename(name), [])
        if name in same:
            return name
        closest = [each for each in same if each.endswith(f"/{name}")] or same
        if len(closest) > 1:  # below a folder that only says that there are images
            closest = [each for each in closest if _is_image_folder(each.removesuffix(f"/{name}"))]
        return closest[0] if len(closest) == 1 else None

    def image_of_stem(self, stem: str, folder: str = "") -> str | None:
        """The image whose path below `folder` is `stem` and a suffix; None where there is none, or several."""
        if self._by_stem is None:
            self._by_stem = {}
            for each in self.images():
                self._by_stem.setdefault(posixpath.splitext(each)[0], []).append(each)
        found = self._by_stem.get(folder + stem, [])
        return found[0] if len(found) == 1 else None


def open_files(source: str, *, follow_links: bool = False) -> SourceFiles:
    """The files at a path or URI: a folder, a .zip, or one .json. Raises InputError for what is none of these."""
    lower = source.lower()
    try:
        if lower.endswith(".zip"):
            archive = _Zip(_opened(source), source)
            return SourceFiles(source, archive, archive.refused)
        if lower.endswith(".json"):
            folder, name = split_uri(source)
            return SourceFiles(source, _OneFile(open_store(folder), name))
        store = open_source(source, follow_links=follow_links)
        store.check_readable()
        return SourceFiles(source, _Folder(store))
    except StorageError as error:
        raise InputError(str(error)) from error


class _Folder:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: list[str] = []
        for info in store.list():
            self._names.append(info.key)
            if len(self._names) > MOST_FILES:
                raise InputError(f"{store.uri} has over {MOST_FILES:,} files; import its parts one by one")

    def names(self) -> Sequence[str]:
        return self._names

    def read(self, name: str, most_bytes: int) -> bytes:
        return self._store.get(name, most_bytes=most_bytes)


class _OneFile:
    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        store.head(name)

    def names(self) -> Sequence[str]:
        return [self._name]

    def read(self, name: str, most_bytes: int) -> bytes:
        return self._store.get(name, most_bytes=most_bytes)


class _Zip:
    """An archive read in place."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        try:
            self._archive = zipfile.ZipFile(file)
        except _ZIP_ERRORS as error:
            raise InputError(
                f"{uri} is not a zip archive that can be read ({error}); copy or export it again"
            ) from error
        entries = self._archive.infolist()
        if len(entries) > MOST_FILES:
            raise InputError(f"{uri} has {len(entries):,} entries, over {MOST_FILES:,}; import its parts one by one")
        self.refused: list[tuple[str, str]] = []
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.is_dir():
                continue
            why = _why_refused(entry)
            if why is None and entry.filename in self._entries:
                why = "the archive has two entries of this name, and readers differ in which they take"
            if why is None:
                self._entries[entry.filename] = entry
            else:
                self.refused.append((entry.filename, why))
        for name, _ in self.refused:
            self._entries.pop(name, None)

    def names(self) -> Sequence[str]:
        return sorted(self._entries)

    def read(self, name: str, most_bytes: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise ObjectMissing(f"the archive has no {printable(name)}")
        try:
            with self._archive.open(entry) as file:
                data = file.read(most_bytes + 1)  # whatever size the entry declares
        except _ZIP_ERRORS as error:
            raise StorageError(f"{printable(name)} is damaged in the archive ({error})") from error
        except Exception as error:  # zlib, bz2 and lzma have errors of their own
            raise StorageError(f"{printable(name)} is damaged in the archive ({error})") from error
        if len(data) > most_bytes:
            raise StorageError(f"{printable(name)} unpacks to more than the {most_bytes >> 20} MiB that it may have")
        return data


def _why_refused(entry: zipfile.ZipInfo) -> str | None:
    name = entry.filename
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link"
    if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or ".." in name.split("/"):
        return "its name leads out of the archive"
    if any(part in ("", ".") for part in name.split("/")) or not name.isprintable():
        return "its name is no path"
    if entry.flag_bits & 1:
        return "it is encrypted"
    return None


def _opened(source: str) -> IO[bytes]:
    folder, name = split_uri(source)
    store = open_store(folder)
    if scheme_of(source) == "file" and not source.lower().startswith("file://"):
        try:
            return open(source, "rb")
        except OSError as error:
            raise InputError(f"{source} cannot be read ({error.strerror}); correct the path") from error
    size = store.head(name).size
    file = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - as above
    for offset in range(0, size, _PIECE):
        file.write(store.get_range(name, offset, min(_PIECE, size - offset)))
    file.seek(0)
    return file


def _is_image_folder(path: str) -> bool:
    return all(part.lower() in IMAGE_FOLDERS for part in path.split("/"))


def _is_clutter(name: str) -> bool:
    """What systems leave beside files: __MACOSX/, .DS_Store, thumbnails."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] in ("Thumbs.db", "desktop.ini") or any(p.startswith(".") for p in parts)


def short(value: object) -> str:
    """A value of the source for a message: one line that prints, 60 characters at most."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = printable(text)
    return text if len(text) <= 60 else f"{text[:57]}..."
