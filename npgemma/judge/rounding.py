"""float64 to bfloat16 in one rounding: what a golden holds, and what a judge allows."""

import numpy as np

from npgemma.base.precision import round_bf16


def to_odd_float32(x):
    """Give float32 of the float64 ``x``, an inexact one with its last bit set, so that a further rounding is right.

    Notes
    -----
    Boldo & Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd".
    """
    with np.errstate(over="ignore", under="ignore"):
        nearest = x.astype(np.float32)
    bits = nearest.view(np.uint32)
    away = np.abs(nearest.astype(np.float64)) > np.abs(x)
    inexact = (nearest != x) & ~np.isnan(x)
    # One step back towards zero where the nearest lay beyond; the sign bit stands apart and takes no part.
    return np.where(inexact, (bits - away.astype(np.uint32)) | 1, bits).astype(np.uint32).view(np.float32)


def to_bf16(x):
    """Round float32 or float64 to the nearest bfloat16 value, once, ties to even: a float32 array."""
    return round_bf16(to_odd_float32(x) if x.dtype == np.float64 else x)


def stored(x, dtype):
    """Round float64 once to ``float64``, ``float32`` or ``bfloat16`` (then a float32 array of bfloat16 values)."""
    if dtype == "bfloat16":
        return to_bf16(x)
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(np.dtype(dtype))


def bf16_bits(x):
    """The upper halves of numbers that are bfloat16 values: uint16, as files hold them; a NaN stays one."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    # The payload of a NaN may lie in the lower half alone, and its upper half would be an infinity.
    return np.where(np.isnan(x), (bits >> 16) | 0x40, bits >> 16).astype(np.uint16)
