import numpy as np
import pytest

from npgemma import ops
from npgemma.base import half, products
from npgemma.base.precision import PRECISIONS


def bf16_bits(x):
    """Cut float32 to its upper half: the bits of a bfloat16."""
    return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)


def test_widening_reads_known_bits():
    # 0x3F80 is 1, 0xC000 is -2, 0x7F80 infinity, 0x0001 the smallest subnormal.
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    wanted = [1.0, -2.0, np.inf, 2.0**-133]
    assert half.widen(bits).tolist() == wanted
    assert half.floats(bits.reshape(2, 2)).reshape(-1).tolist() == wanted
    assert half.widen(np.float16([1.5])).dtype == np.float32
    assert half.widen(np.float64([1.5])).dtype == np.float64


def test_linear_and_embed_take_stored_matrices():
    table = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    bits = bf16_bits(table)
    assert ops.embed(np.array([[1]]), bits).tolist() == [[[3.0, 4.0]]]
    assert ops.linear(np.float32([[[1.0, 1.0]]]), bits, np.float32([10, 20])).tolist() == [[[13.0, 27.0]]]


@pytest.mark.parametrize("num_rows", [1, 40])
def test_a_large_matrix_is_widened_to_float64_by_rows_and_never_whole(monkeypatch, num_rows):
    monkeypatch.setattr(half, "LARGE", 100)
    rng = np.random.default_rng(0)
    bits = bf16_bits(rng.normal(size=(700, 24)).astype(np.float32))
    wide = PRECISIONS["float64"].weight(bits)
    assert isinstance(wide, half.Wide)
    monkeypatch.setattr(half.Wide, "__array__", None)  # whoever wants it whole fails
    x = rng.normal(size=(num_rows, 24))
    whole = half.widen(bits).astype(np.float64)
    np.testing.assert_allclose(products.linear(x, wide), x @ whole.T, rtol=1e-13, atol=1e-13)
    assert np.array_equal(wide[np.array([[3, 5]])], whole[[[3, 5]]])
    assert isinstance(PRECISIONS["float64"].weight(bits[:4]), np.ndarray)
