"""Matrices kept in 16 bits, as a checkpoint stores them, and the products with them.  Host memory only.

A ``uint16`` array holds bfloat16 bits, which NumPy has no type for; ``float16`` is NumPy's own.  Such a matrix is
widened block by block inside the product, never whole.
"""

import numpy as np


def is_stored(array) -> bool:
    """Tell whether an array is kept in 16 bits."""
    return array.dtype == np.uint16 or array.dtype == np.float16


def widen(array):
    """Give an array as floats to compute with: bfloat16 bits and float16 become float32, others stay."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array


def linear(x, weight, block_rows=512):
    """Multiply by a stored matrix, widening ``block_rows`` of its rows at a time.

    Parameters
    ----------
    x : (T, D)
        float32.
    weight : (F, D)
        bfloat16 bits or float16.
    block_rows : int

    Returns
    -------
    y : (T, F)
        ``x @ weight.T`` in float32.
    """
    starts = range(0, weight.shape[0], block_rows)
    return np.concatenate([x @ widen(weight[start : start + block_rows]).T for start in starts], axis=-1)
