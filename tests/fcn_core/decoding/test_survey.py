"""Whatever variant of a format comes: its pixels are right, or it is refused by its name. None is quietly different."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError
from tests.fcn_core.decoding import survey, survey_tiff
from tests.fcn_core.decoding.survey import Variant


@pytest.mark.parametrize("family", [*survey.FAMILIES, *survey_tiff.FAMILIES], ids=lambda family: family.__name__)
def test_every_variant_comes_out_right_or_is_refused_by_its_name(family: Callable[[], Iterator[Variant]]) -> None:
    wrong = {variant.name: fault for variant in family() if (fault := fault_of(variant))}
    assert not wrong


def fault_of(variant: Variant) -> str | None:
    """What is wrong with how a variant is read; None if nothing is."""
    try:
        pixels = decode(variant.data).pixels
    except DecodeError as error:
        if error.reason == "unsupported_format" and variant.refused and variant.refused.lower() in str(error).lower():
            return None
        return str(error)
    if variant.expected is None:
        return "it was to be refused"
    if pixels.shape != variant.expected.shape:
        return f"it has shape {pixels.shape} for {variant.expected.shape}"
    apart = int(np.abs(pixels.astype(int) - variant.expected.astype(int)).max())
    return f"it is up to {apart} off" if apart > variant.tolerance else None
