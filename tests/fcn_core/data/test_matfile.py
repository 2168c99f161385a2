import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcn_core.data.matfile import read_sbd_mask
from fcn_core.errors import LabelError
from tests.fcn_core.data.sbd_files import sbd_file

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@settings(deadline=None)
@given(MASKS, st.booleans(), st.sampled_from("<>"))
def test_the_mask_comes_out_as_it_went_in(mask, packed, order):
    assert np.array_equal(read_sbd_mask(sbd_file(mask, packed=packed, order=order)), mask)


@settings(deadline=None)
@given(st.data())
def test_a_file_cut_short_or_damaged_is_refused_or_still_a_mask(data):
    file = sbd_file(np.arange(42, dtype=np.uint8).reshape(6, 7), packed=data.draw(st.booleans()))
    cut = file[: data.draw(st.integers(0, len(file) - 1))]
    at = data.draw(st.integers(0, len(file) - 1))
    changed = file[:at] + bytes([data.draw(st.integers(0, 255))]) + file[at + 1 :]
    for broken in (cut, changed):
        # LabelError is all it may raise; a changed byte may also be a changed pixel, or one that nobody looks at.
        with contextlib.suppress(LabelError):
            assert read_sbd_mask(broken).dtype == np.uint8


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"\x89PNG", "does not begin like a MAT-file"),
        (sbd_file(np.ones((2, 2), np.uint8), field="Other"), "no field Segmentation"),
        (sbd_file(np.ones((2, 2), np.uint16)), "no uint8 array"),
        (sbd_file(np.ones((2, 2))), "no uint8 array"),
        (sbd_file(np.ones((2, 2, 2), np.uint8)), "no uint8 array"),
        (sbd_file(np.ones((2, 2), np.uint8))[:128], "no variable"),
        (sbd_file(np.ones((2, 2), np.uint8)).replace(b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"), "level 5"),
    ],
)
def test_what_is_no_mask_of_sbd_is_said(file, message):
    with pytest.raises(LabelError, match=message):
        read_sbd_mask(file)


def test_an_array_that_unpacks_to_far_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("fcn_core.data.matfile._LARGEST", 1000)
    with pytest.raises(LabelError, match="far too large"):
        read_sbd_mask(sbd_file(np.zeros((100, 100), np.uint8)))
