import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npgemma.base.precision import PRECISIONS, round_bf16

BOUNDED = settings(max_examples=100, derandomize=True, deadline=None)
FLOATS = hnp.arrays(np.uint32, 8, elements=st.integers(0, 2**32 - 1)).map(lambda bits: bits.view(np.float32))


def test_ties_round_to_even():
    # Between 256 and 258 lies 257; 256 has an even last bit.  Between 258 and 260 lies 259, and 260 is even.
    assert round_bf16(np.array([257.0, 259.0], np.float32)).tolist() == [256.0, 260.0]


def test_just_above_a_tie_rounds_up():
    assert round_bf16(np.nextafter(np.array([257.0], np.float32), np.float32(300))).tolist() == [258.0]


def test_nan_stays_nan_and_infinity_stays():
    special = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    assert np.all(np.isnan(round_bf16(special)))
    assert round_bf16(np.array([np.inf, -np.inf], np.float32)).tolist() == [np.inf, -np.inf]
    assert round_bf16(np.array([3.4e38], np.float32)).tolist() == [np.inf]


@BOUNDED
@given(FLOATS)
def test_rounding_is_idempotent_odd_and_leaves_the_low_half_zero(x):
    rounded = round_bf16(x)
    assert np.all((rounded.view(np.uint32) & 0xFFFF == 0) | np.isnan(x))
    assert np.array_equal(round_bf16(rounded), rounded, equal_nan=True)
    assert np.array_equal(round_bf16(-x), -rounded, equal_nan=True)


@BOUNDED
@given(FLOATS)
def test_no_bfloat16_value_is_nearer(x):
    x = x[np.isfinite(x) & (np.abs(x) < 1e38)]
    rounded = round_bf16(x).astype(np.float64)
    bits = round_bf16(x).view(np.uint32)
    for neighbour in (bits + 0x10000, bits - 0x10000):
        other = neighbour.view(np.float32).astype(np.float64)
        same_sign = np.signbit(other) == np.signbit(rounded)
        nearer = np.abs(other - x) < np.abs(rounded - x)
        assert not np.any(nearer & same_sign & np.isfinite(other))


def test_the_embedding_scale_is_rounded_as_published():
    # NUMERICS: sqrt(2048) is 45.25 in bfloat16, sqrt(3584) is 59.75, sqrt(4608) is 68.
    number = PRECISIONS["bf16-hf-eager"].number
    assert [number(size**0.5) for size in (2048, 2304, 3584, 4608)] == [45.25, 48.0, 59.75, 68.0]
    assert PRECISIONS["float64"].number(2048**0.5) == 2048**0.5


def test_recipes_differ_in_rounding_inside():
    x = np.array([1.001], np.float32)
    assert PRECISIONS["bf16-hf-eager"].inner(x) == 1.0
    assert PRECISIONS["bf16-f32-inside"].inner(x) == x
    assert PRECISIONS["bf16-f32-inside"].store(x) == 1.0
