"""More street scenes for the site's source: `python -m deploy.local.images 5`, with the site's env file sourced.

They are painted from numbers, as in `make demo`; those that are there stay as they are.
"""

from typing import Annotated

from cyclopts import App, Parameter, validators

from deploy.local.settings import DATASET, SOURCE
from flows.demo.bucket import street_files, upload, upload_dataset
from pipeline.storage.opening import open_store

SPLITS = {"train": range(24), "val": range(10_000, 10_008)}
"""Seeds of a data set that is large enough to try the flows `retrain` and `evaluate` on, and no more."""

app = App(name="python -m deploy.local.images", result_action="return_value")


@app.default
def add(count: Annotated[int, Parameter(validator=validators.Number(gte=0))], *, dataset: bool = False) -> None:
    """Put COUNT more street scenes into the source.

    Parameters
    ----------
    count
        How many.
    dataset
        Also make the small data set of labelled scenes.
    """
    source = open_store(SOURCE)
    there = sum(1 for _ in source.list())
    upload(street_files(range(there, there + count)), source, lambda done: None)
    if dataset:
        upload_dataset(SPLITS, open_store(DATASET), lambda done: None)
    print(f"{count} street scenes added: {there + count} are in {SOURCE} now")


if __name__ == "__main__":
    app()
