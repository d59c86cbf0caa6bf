"""Run-lengths against pycocotools, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_codecs import MASKS, mask_of

from npgemma.base.errors import InputError
from npgemma.places.run_lengths import decode_runs, encode_runs


def test_run_lengths_are_those_of_pycocotools():
    for case in MASKS:
        assert encode_runs(mask_of(case)) == {"size": case["size"], "counts": case["counts"]}


def test_reading_undoes_writing():
    for case in MASKS:
        assert (decode_runs({"size": case["size"], "counts": case["counts"]}) == mask_of(case)).all()


def test_counts_may_be_plain_numbers():
    mask = decode_runs({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 0, 0]]


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**25 - 1))
def test_any_mask_survives(height, width, bits):
    mask = np.array([bits >> n & 1 for n in range(height * width)], bool).reshape(height, width)
    assert (decode_runs(encode_runs(mask)) == mask).all()


@pytest.mark.parametrize(
    "runs, reason",
    [
        (None, "came as None"),
        ({"size": [2, 2]}, "want {'size'"),
        ({"size": [2], "counts": "4"}, r"want \[height, width\]"),
        ({"size": [2, True], "counts": "4"}, r"want \[height, width\]"),
        ({"size": [2, 2], "counts": "5"}, "5 pixels are counted, 2 x 2"),
        ({"size": [2, 2], "counts": [5, -1]}, "whole numbers from 0"),
        ({"size": [2, 2], "counts": "O"}, "whole numbers from 0"),
        ({"size": [2, 2], "counts": 4}, "want a text"),
        ({"size": [2, 2], "counts": "4 "}, "' ' is no part"),
        ({"size": [2, 2], "counts": "4o"}, "has no end"),
        ({"size": [2, 2], "counts": "o" * 99}, "a count has more than 12 characters; the text is damaged"),
        ({"size": [2**20, 2**20], "counts": "4"}, "too large"),
    ],
)
def test_what_is_no_mask_is_refused(runs, reason):
    with pytest.raises(InputError, match=reason):
        decode_runs(runs)
