"""In which sizes an image is seen: the option alone, which jobs read without PyTorch. `views` averages what is seen."""

from typing import Annotated

from pydantic import AfterValidator, Field

MOST_SCALES = 8


def _each_once(scales: tuple[float, ...]) -> tuple[float, ...]:
    """However they are given, the same scales are the same settings."""
    if not 1 <= len(scales) <= MOST_SCALES:
        raise ValueError(f"give 1 to {MOST_SCALES} scales, not {len(scales)}")
    return tuple(sorted(set(scales)))


Scales = Annotated[tuple[Annotated[float, Field(ge=0.25, le=4)], ...], AfterValidator(_each_once)]
"""Factors on an image's height and width, each once, the smallest first."""
