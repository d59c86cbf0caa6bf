import math

import numpy as np
import pytest
from fake_device import DeviceArray
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


def test_linear_keeps_leading_axes():
    assert ops.linear(np.zeros((2, 3, 4, 5)), np.zeros((7, 5))).shape == (2, 3, 4, 7)


def test_embedding_is_a_product_with_one_hot_vectors():
    table = np.random.default_rng(0).normal(size=(6, 3))
    ids = np.array([[4, 0, 4]])
    assert np.array_equal(ops.embed(ids, table), np.eye(6)[ids] @ table)


@pytest.mark.parametrize(
    ("spec", "shape_a", "shape_b"),
    [
        ("btkgh,bskh->bkgts", (2, 3, 4, 5, 6), (2, 7, 4, 6)),
        ("bkgts,bskh->btkgh", (2, 4, 5, 3, 7), (2, 7, 4, 6)),
        ("btkgh,bskh->bkgts", (2, 1, 4, 5, 6), (2, 7, 4, 6)),
        ("bkgts,bskh->btkgh", (1, 4, 5, 9, 7), (1, 7, 4, 6)),
        ("ab,bc->ac", (20, 3), (3, 4)),
        ("abc,dc->dab", (2, 3, 4), (5, 4)),
    ],
)
def test_einsum_by_blas_equals_numpy_einsum(spec, shape_a, shape_b):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape_a), rng.normal(size=shape_b)
    np.testing.assert_allclose(ops.einsum(spec, a, b), np.einsum(spec, a, b), rtol=1e-12, atol=1e-14)


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


def test_gelu_of_a_large_array_equals_gelu_of_each_row():
    x = np.random.default_rng(0).normal(size=(70, 3000)).astype(np.float32)
    assert np.array_equal(ops.gelu(x), np.stack([ops.gelu(row) for row in x]))


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


def test_softmax_gives_masked_keys_nothing_and_a_row_without_keys_the_same_each():
    x = np.array([[1.0, 9.0, 1.0], [3.0, 1.0, 2.0]])
    mask = np.array([[True, False, True], [False, False, False]])
    assert ops.softmax(x, mask).tolist() == [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]]


def test_softmax_of_a_large_array_equals_softmax_of_each_row():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(2, 35, 3000)).astype(np.float32), rng.random((35, 3000)) < 0.5
    rows = [[ops.softmax(row, keys) for row, keys in zip(rows, mask, strict=True)] for rows in x]
    assert np.array_equal(ops.softmax(x, mask), rows)


def test_softmax_writes_into_nothing_and_follows_a_mask_with_more_rows():
    x, mask = np.zeros((1, 2)), np.array([[True, False], [True, True], [False, True]])
    x.flags.writeable = mask.flags.writeable = False
    assert ops.softmax(x).tolist() == [[0.5, 0.5]]
    assert ops.softmax(x, mask).tolist() == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]


def test_blocks_in_cache_cover_every_row_once_and_leave_a_gpu_its_one_launch():
    rows = np.zeros((100, ops.IN_CACHE // 7), np.float32)
    blocks = ops.blocks_in_cache(rows)
    assert [row for block in blocks for row in range(100)[block]] == list(range(100))
    assert {len(range(100)[block]) for block in blocks} == {7, 2}
    assert ops.blocks_in_cache(DeviceArray(rows)) == [slice(0, 100)]


def test_softmax_counts_a_score_of_exactly_zero():
    assert ops.softmax(np.array([0.0, 0.0]), np.array([True, True])).tolist() == [0.5, 0.5]


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
        ops.softmax(x, x > -9),
    ]
    assert [result.dtype for result in results] == [dtype] * 6


def test_equations_leave_their_arguments_alone():
    x = np.random.default_rng(0).normal(size=(2, 4))
    x.flags.writeable = False
    one = np.ones(4)
    ops.layer_norm(x, one, one, 1e-6), ops.rms_norm(x, one, 1e-6), ops.gelu(x), ops.softmax(x)
    ops.soft_cap(x, 5.0, unrounded), ops.linear(x, np.eye(4), one)


def test_gelu_does_not_mind_how_numbers_lie_in_memory():
    x = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    wanted = ops.gelu(x)
    for axes in ((0, 2, 1), (2, 1, 0), (1, 0, 2)):
        lying = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
        assert np.array_equal(ops.gelu(lying), wanted)
    apart = np.repeat(x, 2, axis=1)
    assert np.array_equal(ops.gelu(apart[:, ::2]), wanted)
    assert np.array_equal(ops.gelu(x[::-1, :, ::-1]), wanted[::-1, :, ::-1])
    assert np.array_equal(ops.gelu(np.broadcast_to(x[:, :1], x.shape)), np.broadcast_to(wanted[:, :1], x.shape))
