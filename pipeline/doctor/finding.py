"""What a check of the doctor's says."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What one check found. `remedy` says what to do where the state is not "ok"; else it is empty."""

    check: str
    state: State
    found: str
    remedy: str = ""
