"""A plan becomes a run, or is removed as one that nobody went on with: which of the two is decided once, for good.

A driver may freeze between its plan and its record, and whoever removes leftovers between its look and its deletion;
neither can see what the other will do. So both first create runs/<id>/claim.json, which is never deleted nor written
again, and go on only where it is theirs.
"""

from pipeline.errors import ObjectMissing
from pipeline.storage.store import Store, create_own

_RUN, _REMOVED = b'{"plan": "becomes a run"}\n', b'{"plan": "is removed"}\n'


def claim_for_run(output: Store, run_id: str) -> bool:
    """Whether the plan of `run_id` may become a run, for ever; else it is being removed, or is already."""
    return create_own(output, claim_key(run_id), _RUN)


def claim_for_removal(output: Store, run_id: str) -> bool:
    """Whether the plan of `run_id` may be removed, for ever; else it is a run's, be its record there or not yet."""
    return create_own(output, claim_key(run_id), _REMOVED)


def is_claimed_for_run(output: Store, run_id: str) -> bool:
    """Whether the plan of `run_id` is a run's already."""
    try:
        return output.get(claim_key(run_id)) == _RUN
    except ObjectMissing:
        return False


def claim_key(run_id: str) -> str:
    """The name under OUTPUT of the object whose creation decides."""
    return f"runs/{run_id}/claim.json"
