"""The sets of factors: made to break naive code, of bfloat16 values, the same everywhere."""

import numpy as np
import pytest

from npgemma.base.precision import round_bf16
from npgemma.judge import accumulators, datasets


def test_counter_is_splitmix64():
    """The first outputs of SplitMix64 with seed 0, as published with its reference code."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert datasets.uniform(0, 3).tolist() == [(z >> 11) / 2**53 for z in first]


@pytest.mark.parametrize("name", datasets.SETS)
def test_factors_are_finite_bfloat16_values_whose_sums_fit_float32(name):
    x, weight = datasets.factors(name, 2048)
    assert x.shape == weight.shape == (32, 2048)
    assert np.array_equal(round_bf16(x), x) and np.array_equal(round_bf16(weight), weight)
    with np.errstate(all="raise"):
        assert np.all(np.isfinite(accumulators.serial(x, weight)))


def test_zeros_leave_the_two_ends_alone():
    x, weight = datasets.factors("zeros", 256)
    products = x[:, None] * weight[None]
    assert np.all(products[..., 1:-1] == 0) and np.all(products[..., [0, -1]] != 0)
    assert (x == 0).any() and (weight == 0).any()


def test_small_products_vanish_beside_the_large_one_in_bfloat16_and_together_count():
    x, weight = datasets.factors("small-after-large", 2048)
    assert np.all(accumulators.summed_in_bf16(x, weight) == 1.0)
    assert np.all(accumulators.serial(x, weight) > 2.0)
