"""A clock that says what a test wants, for the names of new runs."""

from datetime import datetime

import pytest

from pipeline.outputs import order


def set_clock(patch: pytest.MonkeyPatch, now: datetime) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return now

    patch.setattr(order, "datetime", Clock)
