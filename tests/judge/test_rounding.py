"""bfloat16: against ml_dtypes' table, and from float64 without rounding twice."""

import json
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden import GOLDEN
from npgemma.base.precision import round_bf16
from npgemma.judge.rounding import bf16_bits, to_bf16

FOLDER = GOLDEN / "bfloat16"
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_text())


def table():
    """ml_dtypes' result bits (6, 65536) and the float32 numbers they come from."""
    upper = np.arange(2**16, dtype=np.uint32)
    lower = np.array(MANIFEST["lower_halves"], dtype=np.uint32)
    steps = np.frombuffer(zlib.decompress((FOLDER / "rounding.zlib").read_bytes()), "<u2").reshape(len(lower), -1)
    return (upper.astype(np.uint16) + steps), ((upper << 16) | lower[:, None]).view(np.float32)


@pytest.mark.parametrize("round", [round_bf16, to_bf16], ids=["float32", "from float64"])
def test_no_pattern_differs_from_ml_dtypes(round):
    expected, numbers = table()
    assert expected.size == 6 * 65536
    with np.errstate(invalid="ignore"):
        ours = bf16_bits(round(numbers if round is round_bf16 else numbers.astype(np.float64)))
    nan = np.isnan(numbers)
    assert np.array_equal(ours[~nan], expected[~nan])
    assert np.all(np.isnan((ours[nan].astype(np.uint32) << 16).view(np.float32)))


def test_half_a_unit_and_a_little_goes_up_though_float32_cannot_hold_the_little():
    """1 + 2**-8 is the tie between 1 and 1 + 2**-7; rounded to float32 first, 2**-40 is lost and the tie goes down."""
    x = np.array([1 + 2.0**-8 + 2.0**-40, -(1 + 2.0**-8 + 2.0**-40), 1 + 2.0**-8, 1 + 3 * 2.0**-8 - 2.0**-40])
    assert to_bf16(x).tolist() == [1 + 2.0**-7, -(1 + 2.0**-7), 1.0, 1 + 2.0**-7]
    assert round_bf16(x.astype(np.float32))[0] == 1.0


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-(2.0**127), max_value=2.0**127))
def test_float64_goes_to_the_nearest_bfloat16_by_exact_fractions(x):
    rounded = to_bf16(np.array([x]))[0]
    bits = int(bf16_bits(rounded[None])[0]) & 0x7FFF
    below, above = (Fraction(value(max(0, bits + step))) for step in (-1, 1))
    gap, exact = abs(Fraction(float(abs(rounded))) - abs(Fraction(x))), abs(Fraction(x))
    assert gap <= min(abs(below - exact), abs(above - exact))
    if bits % 2:  # of two equally near, the even one
        assert gap < min(abs(below - exact), abs(above - exact))


def value(bits):
    """The number whose bfloat16 bits these are."""
    return float((np.array([bits], dtype=np.uint32) << 16).view(np.float32)[0])


def test_a_nan_whose_payload_lies_in_the_lower_half_stays_a_nan():
    x = np.array([0x7F800001, 0xFF800001], dtype=np.uint32).view(np.float32)
    assert [hex(bits) for bits in bf16_bits(round_bf16(x))] == ["0x7fc0", "0xffc0"]


def test_bits_do_not_depend_on_what_carries_the_values():
    values = to_bf16(np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    assert bf16_bits(np.float32([1.0, -2.5])).tolist() == [0x3F80, 0xC020]
    assert np.array_equal(bf16_bits(values.astype(np.float64)), bf16_bits(values))
    assert np.array_equal(bf16_bits(values.T), bf16_bits(values).T)
