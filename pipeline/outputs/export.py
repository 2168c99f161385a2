"""Masks under plain names, for tools that expect photos/a.jpg's mask at photos/a.png."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import PurePosixPath

from pipeline.outputs.current import choose_recipe, read_current
from pipeline.outputs.identity import safe_path
from pipeline.outputs.masks import read_mask
from pipeline.storage.store import open_store

COPIES_AT_ONCE = 32


def export_masks(output: str, destination: str, recipe: str | None = None) -> tuple[int, str]:
    """Copy the current mask of every image to `destination`; returns how many, and of which recipe.

    The image's suffix becomes .png. Where two images would share a name (a.jpg and a.png), both keep their suffix
    (a.jpg.png). Masks already there are replaced. Raises InputError when there is nothing to export.
    """
    store = open_store(output)
    store.check_readable()
    chosen = choose_recipe(store, recipe)
    target = open_store(destination)
    target.check_writable()
    current = read_current(store, ["status", "mask_key"], variant=chosen.recipe)
    wanted = [(row["key"], row["mask_key"]) for row in current.to_pylist() if row["status"] == "ok"]
    names = plain_names([key for key, _ in wanted])

    def copy(item: tuple[str, str]) -> None:
        key, mask_key = item
        target.put(names[key], read_mask(store, mask_key))

    with ThreadPoolExecutor(COPIES_AT_ONCE, "export") as threads:
        items = iter(wanted)
        # In slices: submitting everything at once would hold a future for each of millions of masks.
        while chunk := list(islice(items, COPIES_AT_ONCE * 32)):
            list(threads.map(copy, chunk))
    return len(wanted), chosen.recipe


def plain_names(keys: list[str]) -> dict[str, str]:
    """The name of each key's mask, all different and safe for any store.

    The key's suffix becomes .png; where two keys would meet, .png is added to the whole key, as often as it takes.
    """
    paths = {key: PurePosixPath(safe_path(key)) for key in keys}
    short = {key: str(path.with_suffix(".png")) for key, path in paths.items()}
    uses = Counter(short.values())
    names = {key: name for key, name in short.items() if uses[name] == 1}
    taken = set(names.values())
    for key in keys:
        if key not in names:
            name = f"{paths[key]}.png"
            while name in taken:
                name += ".png"
            names[key] = name
            taken.add(name)
    return names
