"""Matrices kept in 16 bits, as a checkpoint stores them, and how they become float32.

A ``uint16`` array holds bfloat16 bits, which NumPy has no type for; ``float16`` is NumPy's own.  Such a matrix is
widened inside the product (:mod:`npgemma.base.products`), block by block, never whole.
"""

import threading

import numpy as np

# Numbers of a matrix that is widened to float64 by rows, never whole: 134 MB of them.
LARGE = 1 << 24


def is_stored(array) -> bool:
    """Tell whether an array is kept in 16 bits."""
    return array.dtype == np.uint16 or array.dtype == np.float16


def widen(array):
    """Give an array as floats to compute with: bfloat16 bits and float16 become float32, others stay."""
    if array.dtype == np.uint16:
        bits = array.astype(np.uint32)
        bits <<= 16  # where they lie: a second copy of a large tensor is memory that a small machine has not
        return bits.view(np.float32)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array


def widen_once(bits):
    """Give floats of a stored matrix in one pass over memory, which is what a graphics card waits for."""
    if bits.dtype == np.uint16:
        return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)
    return bits.astype(np.float32)


def widen_into(block, bits):
    """Widen rows of a stored matrix into ``block``.

    Copying bfloat16 bits into uint32 and shifting them where they lie is two passes, and yet twice as fast as one
    shift that widens, which NumPy does in small buffers.

    Parameters
    ----------
    block : (F, D)
        float32, written.
    bits : (F, D)

    Returns
    -------
    block : (F, D)
    """
    if bits.dtype == np.float16:
        block[...] = bits
        return block
    block_bits = block.view(np.uint32)
    block_bits[...] = bits
    np.left_shift(block_bits, 16, out=block_bits)
    return block


def is_large(array) -> bool:
    """Tell whether a matrix of the host's memory is too large to be widened to float64 whole."""
    return isinstance(array, np.ndarray) and array.ndim == 2 and array.size > LARGE


class Wide:
    """A large matrix in float64, of which no more is widened at a time than the rows that are read.

    Parameters
    ----------
    array : (F, D)
        As it is stored.
    rounded : callable, optional
        What becomes of its rows first: a recipe's rounding of weights.
    """

    dtype, ndim = np.dtype(np.float64), 2

    def __init__(self, array, rounded=widen):
        self.array, self.rounded = array, rounded

    shape = property(lambda self: self.array.shape)
    size = property(lambda self: self.array.size)
    T = property(lambda self: self[:].T)

    def __getitem__(self, rows):
        return widen(self.rounded(self.array[rows])).astype(np.float64)

    def __array__(self, dtype=None, copy=None):
        return self[:]


class Scratch(threading.local):
    """Each thread's own buffer."""

    numbers = np.empty(0, dtype=np.float32)


SCRATCH = Scratch()


def scratch(shape):
    """Give float32 numbers of this thread's buffer, overwritten by its next product.

    The buffer grows and stays: fresh memory costs more than widening into it.  It starts where a cache line does.
    """
    size = shape[0] * shape[1]
    if SCRATCH.numbers.size < size:
        longer = np.empty(size + 16, dtype=np.float32)
        SCRATCH.numbers = longer[-longer.ctypes.data % 64 // 4 :][:size]
    return SCRATCH.numbers[:size].reshape(shape)


def floats(weight):
    """Give rows of a matrix (F, D) as floats: those of a stored one in this thread's buffer, others as they are."""
    return widen_into(scratch(weight.shape), weight) if is_stored(weight) else weight


def forget_scratch() -> None:
    """Give this thread a new buffer next time: somebody else may still be writing into the old one."""
    SCRATCH.numbers = np.empty(0, dtype=np.float32)
