"""In which numbers the model computes: a dtype, and where results are rounded to bfloat16.

bfloat16 is emulated: float32 arrays whose values are bfloat16 values.  There is no single bfloat16 answer, because
implementations round in different places; so a recipe has a name.  Real bfloat16 storage is :mod:`npgemma.base.half`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npgemma.base import half


def unrounded(x):
    """Give ``x`` back: the rounding of a precision that has none."""
    return x


def round_bf16(x):
    """Round float32 to the nearest bfloat16 value, ties to even.

    Parameters
    ----------
    x : (...)
        float32.

    Returns
    -------
    y : (...)
        float32, the low 16 bits zero.  NaN stays NaN; what exceeds the largest bfloat16 becomes infinite.

    Notes
    -----
    Adding ``0x7FFF`` plus the lowest kept bit carries into the kept half exactly when round-to-nearest-even goes up.
    Reference: c10/util/BFloat16.h, round_to_nearest_even.
    """
    bits = x.view(np.uint32)
    lowest_kept = (bits >> 16) & 1
    rounded = ((bits + 0x7FFF + lowest_kept) & 0xFFFF0000).view(np.float32)
    # The carry could turn a NaN into an infinity.
    return np.where(np.isnan(x), x, rounded)


@dataclass(frozen=True)
class Precision:
    """A dtype and two rounding functions.

    Parameters
    ----------
    name : str
    dtype : type
        Of every floating array: ``np.float64`` or ``np.float32``.
    store : callable
        Rounds each tensor that PyTorch materialises as a layer's named intermediate.
    inner : callable
        Rounds inside the equations that eager PyTorch computes in several materialised steps: rotation, soft-cap,
        scaling of scores.
    as_it_lies : tuple of type
        Weights of these dtypes need no change: :func:`npgemma.ops.linear` widens 16-bit matrices block by block.
    """

    name: str
    dtype: type
    store: Callable
    inner: Callable
    as_it_lies: tuple[type, ...]

    def weight(self, array):
        """Give a weight, as it is stored or was loaded, in the numbers that layers compute with: the one place."""
        if array.dtype in self.as_it_lies:
            return array
        if self.dtype is np.float64 and half.is_large(array):
            return half.Wide(array)
        return self.store(half.widen(array).astype(self.dtype, copy=False))

    def number(self, value: float) -> float:
        """Round one constant the way the precision stores it (the embedding scale, sqrt(D))."""
        return float(self.store(np.full(1, value, dtype=self.dtype))[0])


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("float64", np.float64, unrounded, unrounded, (np.float64,)),
        Precision("float32", np.float32, unrounded, unrounded, (np.float32, np.uint16, np.float16)),
        # transformers in bfloat16 with eager attention: every step of its Python code is a rounded tensor.
        Precision("bf16-hf-eager", np.float32, round_bf16, round_bf16, (np.uint16,)),
        # What a fused kernel does: float32 inside, one rounding where a named tensor leaves it.
        Precision("bf16-f32-inside", np.float32, round_bf16, unrounded, (np.uint16,)),
    )
}
