"""The decoder's refusals in the pipeline's own errors."""

import pytest

from fcn_core import decoding
from pipeline.codec.images import decode
from pipeline.errors import ImageError
from tests.hostile.formats import sample


def test_pixels_are_those_of_the_one_decoder() -> None:
    assert (decode(sample("JPEG")).pixels == decoding.decode(sample("JPEG")).pixels).all()


def test_a_refusal_keeps_its_reason_and_its_sentence() -> None:
    with pytest.raises(ImageError) as caught:
        decode(b"")
    assert (caught.value.reason, caught.value.message) == ("empty_file", "The file is empty.")
