import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npgemma import ops
from npgemma.base.precision import unrounded

BOUNDED = settings(max_examples=50, derandomize=True, deadline=None)


def vectors(low=-20.0, high=20.0):
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)
    return hnp.arrays(np.float64, shapes, elements=st.floats(low, high))


def test_linear_multiplies_by_the_transposed_matrix_and_adds_the_bias():
    x = np.array([[1.0, 2.0]])
    weight = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert ops.linear(x, weight).tolist() == [[1.0, 2.0, 3.0]]
    assert ops.linear(x, weight, np.array([10.0, 20.0, 30.0])).tolist() == [[11.0, 22.0, 33.0]]


def test_an_id_beyond_the_table_reads_row_zero():
    table = np.array([[1.0], [2.0]])
    assert ops.embed(np.array([[1, 2, 7]]), table).tolist() == [[[2.0], [1.0], [1.0]]]


def test_soft_tokens_take_their_places_in_order_and_change_nothing_else():
    embedded = np.arange(8.0).reshape(2, 4, 1)
    places = np.array([[False, True, True, False], [True, False, False, True]])
    spliced = ops.splice(embedded, np.array([[[10.0], [11.0]], [[12.0], [13.0]]]), places)
    assert spliced[..., 0].tolist() == [[0.0, 10.0, 11.0, 3.0], [12.0, 5.0, 6.0, 13.0]]
    assert embedded[..., 0].tolist() == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]


def test_heads_are_neighbours_and_query_heads_of_one_key_head_stand_together():
    x = np.arange(12.0).reshape(1, 1, 12)
    heads = ops.split_heads(x, 6)
    assert heads[0, 0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    grouped = ops.group_heads(heads, 2)
    assert grouped.shape == (1, 2, 3, 1, 2) and grouped[0, 1, 0, 0].tolist() == [6, 7]
    assert np.array_equal(ops.merge_heads(grouped), x)


def test_linear_keeps_leading_axes():
    assert ops.linear(np.zeros((2, 3, 4, 5)), np.zeros((7, 5))).shape == (2, 3, 4, 7)


def test_embedding_is_a_product_with_one_hot_vectors():
    table = np.random.default_rng(0).normal(size=(6, 3))
    ids = np.array([[4, 0, 4]])
    assert np.array_equal(ops.embed(ids, table), np.eye(6)[ids] @ table)


def test_layer_norm_gives_mean_zero_variance_one_and_ignores_shift_and_scale():
    x = np.random.default_rng(0).normal(size=(3, 50))
    gain, bias = np.ones(50), np.zeros(50)
    normed = ops.layer_norm(x, gain, bias, 0.0)
    np.testing.assert_allclose(normed.mean(-1), 0.0, atol=1e-15)
    np.testing.assert_allclose(normed.var(-1), 1.0, atol=1e-14)
    np.testing.assert_allclose(ops.layer_norm(3.0 * x + 7.0, gain, bias, 0.0), normed, atol=1e-13)


def test_layer_norm_adds_eps_to_the_variance_inside_the_root():
    # Mean 0, variance 1, eps 3: the root is 2.
    gain, bias = np.array([10.0, 1.0]), np.array([0.0, 5.0])
    assert ops.layer_norm(np.array([1.0, -1.0]), gain, bias, 3.0).tolist() == [5.0, 4.5]


def test_rms_norm_of_zero_weight_has_unit_root_mean_square():
    y = ops.rms_norm(np.random.default_rng(0).normal(size=(3, 50)), np.zeros(50), 0.0)
    np.testing.assert_allclose(np.sqrt(np.mean(y * y, -1)), 1.0, atol=1e-14)


def test_rms_norm_adds_eps_inside_the_root_and_one_to_the_weight():
    # Mean square 1, eps 3: the root is 2.
    assert ops.rms_norm(np.array([1.0, -1.0]), np.array([0.0, 1.0]), 3.0).tolist() == [0.5, -1.0]


@BOUNDED
@given(vectors(-20, 30))
@example(np.array([-0.0, 0.0]))
def test_gelu_of_x_minus_gelu_of_minus_x_is_x(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    bound = 4 * 2.0**-52 * (1 + np.abs(2 * u)) * np.abs(x)
    assert np.all(np.abs(ops.gelu(x) - ops.gelu(-x) - x) <= bound + 1e-300)


def test_gelu_equals_its_textbook_form_where_that_does_not_cancel():
    x = np.linspace(-2.0, 8.0, 101)
    textbook = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(ops.gelu(x), textbook, rtol=1e-13)


def test_gelu_keeps_its_negative_tail_and_ends_in_minus_zero_without_a_warning():
    tail = ops.gelu(np.array([-6.0, -7.0], dtype=np.float32))
    assert np.all(tail < 0.0) and tail[1] > tail[0]
    far = ops.gelu(np.array([-1e4, -3e38], dtype=np.float32))
    assert far.tolist() == [0.0, 0.0] and np.all(np.signbit(far))


@BOUNDED
@given(vectors(-1e3, 1e3))
def test_soft_cap_is_odd_and_bounded(x):
    capped = ops.soft_cap(x, 5.0, unrounded)
    assert np.all(np.abs(capped) <= 5.0)
    assert np.array_equal(ops.soft_cap(-x, 5.0, unrounded), -capped)


def test_soft_cap_has_slope_one_at_zero_and_is_monotone():
    x = np.linspace(-20, 20, 401)
    capped = ops.soft_cap(x, 5.0, unrounded)
    assert np.all(np.diff(capped) > 0)
    assert abs(ops.soft_cap(np.array([1e-6]), 5.0, unrounded)[0] / 1e-6 - 1) < 1e-12


@BOUNDED
@given(vectors())
def test_softmax_is_positive_sums_to_one_and_ignores_a_shift(x):
    probs = ops.softmax(x)
    assert np.all(probs >= 0)
    np.testing.assert_allclose(probs.sum(-1), 1.0, atol=1e-15 * x.shape[-1])
    np.testing.assert_allclose(ops.softmax(x + 16.0), probs, rtol=1e-13)


def test_patches_are_row_by_row_and_flattened_channel_row_column():
    pixels = np.arange(4 * 4 * 3.0).reshape(1, 4, 4, 3)
    flat = ops.patchify(pixels, 2)
    assert flat.shape == (1, 4, 12)
    # The second patch is at the right of the first: pixels (0, 2), (0, 3), (1, 2), (1, 3), channel by channel.
    expected = [pixels[0, row, column, channel] for channel in range(3) for row in (0, 1) for column in (2, 3)]
    assert flat[0, 1].tolist() == expected


def test_patch_embedding_equals_a_convolution_written_as_loops():
    rng = np.random.default_rng(0)
    pixels, kernel = rng.normal(size=(2, 7, 7, 3)), rng.normal(size=(5, 3, 3, 3))
    product = ops.linear(ops.patchify(pixels, 3), kernel.reshape(5, -1))
    expected = np.zeros((2, 4, 5))
    for i, row, column, out in np.ndindex(2, 2, 2, 5):
        for channel, y, x in np.ndindex(3, 3, 3):
            pixel = pixels[i, row * 3 + y, column * 3 + x, channel]
            expected[i, row * 2 + column, out] += pixel * kernel[out, channel, y, x]
    np.testing.assert_allclose(product, expected, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equations_compute_in_the_dtype_of_their_input(dtype):
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(dtype)
    one = np.ones(4, dtype)
    results = [
        ops.linear(x, np.eye(4, dtype=dtype), one),
        ops.layer_norm(x, one, one, 1e-6),
        ops.rms_norm(x, one, 1e-6),
        ops.gelu(x),
        ops.soft_cap(x, 5.0, unrounded),
        ops.softmax(x),
    ]
    assert [result.dtype for result in results] == [dtype] * 6


def test_equations_leave_their_arguments_alone():
    x = np.random.default_rng(0).normal(size=(2, 4))
    x.flags.writeable = False
    one = np.ones(4)
    ops.layer_norm(x, one, one, 1e-6), ops.rms_norm(x, one, 1e-6), ops.gelu(x), ops.softmax(x)
    ops.soft_cap(x, 5.0, unrounded), ops.linear(x, np.eye(4), one)
