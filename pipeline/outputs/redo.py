"""Which runs redid only some images (`where`), as a file of the run's own.

The one thing to know: such a run's variant lies over the ones before, see `pipeline.outputs.current`. The file is there
before the run's record, so before its first row; its name alone counts, so that SQL need not read it.
"""

from pipeline.errors import ObjectMissing
from pipeline.storage.store import Store


def write_where(store: Store, run_id: str, where: str) -> None:
    """Note that the run redoes only images that fit `where`."""
    store.put(_key(run_id), f"{where}\n".encode())


def redid_some(store: Store, run_id: str) -> bool:
    """Whether a run redid only some images."""
    try:
        store.head(_key(run_id))
    except ObjectMissing:
        return False
    return True


def _key(run_id: str) -> str:
    return f"runs/{run_id}/where.txt"
