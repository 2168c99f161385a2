"""`--open`: a page that was just written, in the browser of whoever sits at this machine."""

import webbrowser
from pathlib import Path

from rich.console import Console

from pipeline.errors import InputError
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store


def page_folder(place: str | None, instead: str) -> Path:
    """The local folder that a page will be written to. Raises InputError where no browser can open what is there.

    `instead` is the option to give then.
    """
    store = open_store(place) if place is not None else None
    if not isinstance(store, LocalStore):
        where = f"in {store.uri}" if store is not None else "nowhere"
        raise InputError(f"--open shows a file of this machine, and the page goes {where}; give {instead} as well")
    return Path(store.uri)


def open_page(screen: Console, page: Path) -> None:
    """Start a browser, or say that there is none."""
    if not webbrowser.open(page.absolute().as_uri()):
        screen.print(f"no browser could be started here; open {page} with one", markup=False)
