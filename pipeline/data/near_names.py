"""Files by the names that lists give them, where list and file differ only in how a name is written.

The one thing to know: what is unambiguous is accepted: capitals, Unicode normalisation, an extension or a folder in
the list, `_mask` behind a mask's name. What is not is left missing, with the near miss to say.
"""

import posixpath
import unicodedata
from collections.abc import Iterable

FOLDERS = ("JPEGImages/", "SegmentationClass/", "SegmentationClassAug/", "img/", "cls/")
_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".avif", ".jp2", ".mat",
    ".jxl", ".heic", ".heif",
)  # fmt: skip
_MASK_ENDINGS = ("_mask", "-mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "_L", ".mask")


def plain_name(entry: str) -> str:
    """An entry of a list as the name of a pair: without `./`, a folder of the layout, or an extension of images."""
    name = entry.strip().removeprefix("./").lstrip("/")
    for folder in FOLDERS:
        name = name.removeprefix(folder)
    stem, extension = posixpath.splitext(name)
    return stem if extension.lower() in _EXTENSIONS else name


def columns(entry: str) -> tuple[str, str] | None:
    """The image and the mask of a line that names both, each with its extension; None for a line with one name."""
    parts = entry.split()
    if len(parts) != 2 or not all(part.lower().endswith(_EXTENSIONS) for part in parts):
        return None
    return parts[0], parts[1]


def folded(name: str) -> str:
    """The same for names that differ only in capitals and Unicode normalisation."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class NearNames:
    """Looks names up among those that files have (their paths without folder and extension)."""

    def __init__(self, names: Iterable[str], *, masks: bool) -> None:
        self._names = frozenset(names)
        self._endings = ("", *_MASK_ENDINGS) if masks else ("",)
        self._folded: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._folded.setdefault(folded(name), []).append(name)

    def find(self, entry: str) -> str | None:
        """The one name that an entry of a list can mean; None where there is none, or several."""
        for exact in (entry, plain_name(entry)):
            if exact in self._names:
                return exact
        for ending in self._endings:
            found = self._folded.get(folded(plain_name(entry) + ending), [])
            if found:
                return found[0] if len(found) == 1 else None
        return None


def near_miss(entry: str, folder: str, keys: Iterable[str]) -> str | None:
    """A file of `folder` whose name is that of `entry` but for its kind: "SegmentationClass/a.tif"."""
    wanted = folded(plain_name(entry))
    for key in keys:
        stem, extension = posixpath.splitext(key.removeprefix(folder))
        if folded(stem) == wanted or (extension and folded(stem).startswith((f"{wanted}_", f"{wanted}-"))):
            return key
    return None


def with_slashes(key: str) -> str | None:
    """A key as it would be with / where Windows writes a backslash: "images/a.jpg"; None where that is no other key."""
    found = key.replace("\\", "/").removeprefix("./")
    inside = all(part not in ("", ".", "..") for part in found.split("/"))
    return found if found != key and inside else None
