"""Faults that a model cannot have say so themselves, each in its own words."""

import numpy as np
import pytest

from npgemma.judge.faults_products import by_levels
from npgemma.judge.faults_vision import transposed
from npgemma.judge.near import Near, parts


def test_only_a_square_matrix_is_multiplied_the_wrong_way_round():
    x, weight = np.arange(6.0).reshape(2, 3), np.arange(9.0).reshape(3, 3)
    assert np.array_equal(transposed(x, weight), x @ weight)
    with pytest.raises(ValueError, match="only a square matrix can be multiplied the wrong way round"):
        transposed(x, weight[:2])


def test_a_row_without_a_whole_number_of_blocks_has_no_levels():
    weight = np.array([[-2.0, 1.0, 0.0, 3.0]])
    assert np.array_equal(by_levels(weight, 2, 2), [[-2.0, 1.0, 0.0, 3.0]])
    assert np.array_equal(by_levels(weight, 1, 4), [[-3.0, 0.0, 0.0, 3.0]])
    with pytest.raises(ValueError, match="reshape"):
        by_levels(weight, 1, 3)


def test_noise_is_of_numbers_only():
    assert parts(Near(2.0, 0.5, 1e-3), 1e-3) == (2.0, 0.5)
    with pytest.raises(TypeError, match="'red' is no number"):
        parts("red", 1e-3)
