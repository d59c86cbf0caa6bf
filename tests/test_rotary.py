import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from npgemma import rotary
from npgemma.base.precision import unrounded

H = 6
BOUNDED = settings(max_examples=50, derandomize=True, deadline=None)


def turn(x, position):
    radians = rotary.angles(np.array([[position]]), H, 10000.0, np.float64)
    return rotary.rotate(x.reshape(1, 1, 1, H), np.cos(radians), np.sin(radians), unrounded).reshape(H)


def test_angles_are_position_over_powers_of_theta():
    np.testing.assert_allclose(rotary.angles(np.array([[3]]), 4, 100.0, np.float64)[0, 0], [3.0, 0.3], rtol=1e-15)


def test_float32_inverse_frequencies_come_from_an_exactly_rounded_power():
    # 10000 ** float32(2i/H) in float64, rounded to float32: a float32 power misses some of these by an ulp.
    exponents = np.arange(0, 256, 2, dtype=np.float32) / np.float32(256)
    powers = np.array([float(10000.0 ** float(e)) for e in exponents]).astype(np.float32)
    expected = np.float32(4000) * (np.float32(1) / powers)
    radians = rotary.angles(np.array([[4000]]), 256, 10000.0, np.float32)
    assert radians.dtype == np.float32 and np.array_equal(radians[0, 0], expected)


def test_rotation_by_zero_is_the_identity():
    x = np.random.default_rng(0).normal(size=H)
    assert np.array_equal(turn(x, 0), x)


def test_rotation_touches_channel_i_and_its_partner_half_a_head_away():
    for channel in range(H):
        turned = turn(np.eye(H)[channel], 1)
        assert set(np.flatnonzero(turned)) == {channel % 3, channel % 3 + 3}


def test_rotation_turns_the_first_half_towards_the_second():
    turned = turn(np.eye(H)[0], 1)
    np.testing.assert_allclose(turned[[0, 3]], [math.cos(1), math.sin(1)], rtol=1e-15)


@BOUNDED
@given(st.integers(0, 4000), st.integers(0, 4000))
def test_angles_add(first, second):
    x = np.random.default_rng(1).normal(size=H)
    np.testing.assert_allclose(turn(turn(x, first), second), turn(x, first + second), atol=1e-11)


@BOUNDED
@given(st.integers(0, 8192), st.integers(0, 8192), st.integers(0, 100))
def test_products_of_rotated_vectors_depend_on_the_distance_alone(p, r, shift):
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(2, H))
    product = turn(q, p) @ turn(k, r)
    np.testing.assert_allclose(turn(q, p + shift) @ turn(k, r + shift), product, atol=1e-10)


@BOUNDED
@given(st.integers(0, 8192))
def test_rotation_keeps_lengths(position):
    x = np.random.default_rng(3).normal(size=H)
    np.testing.assert_allclose(np.linalg.norm(turn(x, position)), np.linalg.norm(x), rtol=1e-14)
