"""Masks under plain names, for tools that expect photos/a.jpg's mask at photos/a.png."""

import unicodedata
from collections import Counter
from pathlib import PurePosixPath

from pipeline.outputs.current import NEWEST, choose_variant, current_records, read_current
from pipeline.outputs.masks import read_mask
from pipeline.outputs.names import MAX_NAME_BYTES, abridged, safe_path
from pipeline.parallel import in_parallel
from pipeline.storage.opening import open_store

COPIES_AT_ONCE = 32

FILE_NAME_BYTES = 255
"""The longest file name that file systems allow."""


def export_masks(output: str, destination: str, recipe: str | None = None) -> tuple[int, str]:
    """Copy the current mask of every image to `destination`; returns how many, and of which recipe or recipes.

    The image's suffix becomes .png. Where two images would share a name (a.jpg and a.png), both keep their suffix
    (a.jpg.png). Masks already there are replaced. Raises InputError when there is nothing to export.
    """
    store = open_store(output)
    store.check_readable()
    chosen = current_records(store) if recipe is None else (choose_variant(store, recipe),)
    target = open_store(destination)
    target.check_writable()
    current = read_current(store, ["status", "mask_key"], variant=NEWEST if len(chosen) > 1 else chosen[0].recipe)
    wanted = [(row["key"], row["mask_key"]) for row in current.to_pylist() if row["status"] == "ok"]
    names = plain_names([key for key, _ in wanted])

    def copy(item: tuple[str, str]) -> None:
        key, mask_key = item
        target.put(names[key], read_mask(store, mask_key))

    for _ in in_parallel(copy, wanted, threads=COPIES_AT_ONCE, name="export"):
        pass
    return len(wanted), " over ".join(record.recipe for record in chosen)


def plain_names(keys: list[str]) -> dict[str, str]:
    """The name of each key's mask, all different and safe for any store, also one that takes A and a for the same.

    The key's suffix becomes .png. Where two keys would meet, or a name is another's folder, .png is added to the whole
    key, as often as it takes. What is longer than a file system allows ends in a hash.
    """
    paths = {key: PurePosixPath(safe_path(key)) for key in keys}
    short = {key: _fitting(str(path.with_suffix(".png"))) for key, path in paths.items()}
    folders = {_folded(str(parent)) for name in short.values() for parent in PurePosixPath(name).parents}
    uses = Counter(map(_folded, short.values()))
    names = {key: name for key, name in short.items() if uses[_folded(name)] == 1 and _folded(name) not in folders}
    taken = folders | set(map(_folded, names.values()))
    for key in keys:
        if key not in names:
            whole = f"{paths[key]}.png"
            while _folded(name := _fitting(whole)) in taken:
                whole += ".png"
            names[key] = name
            taken.add(_folded(name))
    return names


def _fitting(name: str) -> str:
    """`name`, which ends in .png, with what is too long cut and told apart by a hash."""
    *folders, file = name.split("/")
    parts = [*(_within(folder, "") for folder in folders), _within(file, ".png")]
    short = "/".join(parts)
    return short if len(short.encode()) <= MAX_NAME_BYTES else abridged(name, FILE_NAME_BYTES - 4, ".png")


def _within(part: str, suffix: str) -> str:
    return part if len(part.encode()) <= FILE_NAME_BYTES else abridged(part, FILE_NAME_BYTES - len(suffix), suffix)


def _folded(name: str) -> str:
    """The same for names that some file system takes for one: case and the way accents are composed differ."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
