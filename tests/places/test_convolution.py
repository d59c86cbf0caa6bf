"""Convolutions against the sums of their definition, written as plain loops."""

import itertools

import numpy as np
import pytest

from npgemma.places.convolution import convolve, convolve_transposed

CASES = [(1, 0, 1), (1, 1, 3), (2, 1, 4), (3, 2, 5), (2, 0, 2)]


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def convolve_plain(x, weight, bias, stride, padding):
    """The definition, number by number."""
    B, R, _, C = x.shape
    F, _, K, _ = weight.shape
    side = (R + 2 * padding - K) // stride + 1
    y = np.zeros((B, side, side, F)) + bias
    for b, i, j, f, c, m, n in itertools.product(*map(range, (B, side, side, F, C, K, K))):
        row, column = stride * i + m - padding, stride * j + n - padding
        if 0 <= row < R and 0 <= column < R:
            y[b, i, j, f] += x[b, row, column, c] * weight[f, c, m, n]
    return y


def convolve_transposed_plain(x, weight, bias, stride, padding):
    """The definition, number by number."""
    B, R, _, C = x.shape
    _, F, K, _ = weight.shape
    side = stride * (R - 1) + K - 2 * padding
    y = np.zeros((B, side, side, F)) + bias
    for b, i, j, f, c, m, n in itertools.product(*map(range, (B, R, R, F, C, K, K))):
        row, column = stride * i + m - padding, stride * j + n - padding
        if 0 <= row < side and 0 <= column < side:
            y[b, row, column, f] += x[b, i, j, c] * weight[c, f, m, n]
    return y


@pytest.mark.parametrize("stride, padding, kernel", CASES)
def test_windows_and_one_product_are_the_plain_sums(stride, padding, kernel):
    x, weight, bias = numbers(2, 7, 7, 3), numbers(5, 3, kernel, kernel), numbers(5)
    ours = convolve(x, weight, bias, stride, padding)
    np.testing.assert_allclose(ours, convolve_plain(x, weight, bias, stride, padding), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("stride, padding, kernel", CASES)
def test_one_product_and_strided_sums_are_the_plain_sums(stride, padding, kernel):
    x, weight, bias = numbers(2, 6, 6, 3), numbers(3, 5, kernel, kernel), numbers(5)
    ours, plain = (f(x, weight, bias, stride, padding) for f in (convolve_transposed, convolve_transposed_plain))
    np.testing.assert_allclose(ours, plain, rtol=1e-13, atol=1e-13)


def test_neither_changes_the_dtype_or_its_arguments():
    x, weight, bias = (numbers(*shape).astype(np.float32) for shape in ((1, 4, 4, 2), (2, 2, 4, 4), (2,)))
    before = x.copy()
    assert convolve(x, weight, bias, 2, 1).dtype == convolve_transposed(x, weight, bias, 2, 1).dtype == np.float32
    assert (x == before).all()


def test_the_transposed_one_is_the_adjoint_of_the_other():
    x, y, weight = numbers(1, 8, 8, 3), numbers(1, 4, 4, 5), numbers(5, 3, 4, 4)
    down, up = convolve(x, weight, np.zeros(5), 2, 1), convolve_transposed(y, weight, np.zeros(3), 2, 1)
    assert np.vdot(down, y) == pytest.approx(np.vdot(x, up), rel=1e-12)
