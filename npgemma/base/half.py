"""Matrices kept in 16 bits, as a checkpoint stores them, and the products with them.  Host memory only.

A ``uint16`` array holds bfloat16 bits, which NumPy has no type for; ``float16`` is NumPy's own.  Such a matrix is
widened inside the product, into a buffer that stays from product to product.  A step of generation reads every matrix
once, so it runs at the speed of widening: several threads take block after block (NumPy lets go of the interpreter in
its loops).  A prompt has many rows for each number of the matrix, and is BLAS's.
"""

import contextlib
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Numbers of one block, 4 MB of float32: in a cache that holds it between widening and the product, and large enough
# that threads rarely meet in the interpreter.
BLOCK = 1 << 20

# Numbers widened before one call of BLAS, 134 MB: short calls lose time where BLAS's threads wait for each other.
BLOCK_FOR_BLAS = 1 << 25

# The longest dot product: its piece of x stays near, and BLAS starts no threads of its own for it.
LONGEST_DOT = 2048

# With more rows of x than this, BLAS beats dot products.
FEW_ROWS = 12


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


def linear_plain(x, weight):
    """Multiply by a stored matrix the plain way, widening it whole: what :func:`linear` must equal but for rounding.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)

    Returns
    -------
    y : (T, F)
    """
    return x @ widen(weight).T


def linear(x, weight):
    """Multiply by a stored matrix, widening a block of its rows at a time.

    Parameters
    ----------
    x : (T, D)
        float32.
    weight : (F, D)
        bfloat16 bits or float16.

    Returns
    -------
    y : (T, F)
        ``x @ weight.T`` in float32.
    """
    return dot_rows(x, weight) if x.shape[0] <= FEW_ROWS else multiply_blocks(x, weight)


def dot_rows(x, weight):
    """Take the dot product of each row of the matrix and each of a few rows of ``x``.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)

    Returns
    -------
    y : (T, F)
    """
    T, (F, D) = x.shape[0], weight.shape
    least = -(-D // LONGEST_DOT)
    num_pieces = next((n for n in range(least, 4 * least) if D % n == 0), 1)  # Uneven widths stay whole.
    pieces = np.ascontiguousarray(x).reshape(T, num_pieces, D // num_pieces)
    y = np.empty((T, F, num_pieces), dtype=np.float32)

    def work(rows):
        bits = weight[rows]
        block = widen_into(scratch(bits.size).reshape(bits.shape), bits)
        for t in range(T):
            np.vecdot(block.reshape(-1, num_pieces, D // num_pieces), pieces[t], out=y[t, rows])

    share_rows(F, max(1, BLOCK // D), work)
    return y.sum(axis=-1)


def multiply_blocks(x, weight):
    """Widen all rows, or as many as the buffer takes, then let BLAS multiply by them.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)

    Returns
    -------
    y : (T, F)
    """
    F, D = weight.shape
    y = np.empty((F, x.shape[0]), dtype=np.float32)
    num_rows = min(F, max(1, BLOCK_FOR_BLAS // D))
    block = scratch(num_rows * D).reshape(num_rows, D)
    for first in range(0, F, num_rows):
        bits = weight[first : first + num_rows]
        share_rows(len(bits), max(1, BLOCK // D), lambda rows, bits=bits: widen_into(block[rows], bits[rows]))
        np.matmul(block[: len(bits)], x.T, out=y[first : first + num_rows])
    return y.T


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


def share_rows(num_rows, at_once, work):
    """Run ``work(slice)`` on ``at_once`` rows after the other: each thread, the caller's among them, takes the next.

    Parameters
    ----------
    num_rows, at_once : int
    work : callable
    """
    cuts = [slice(start, min(start + at_once, num_rows)) for start in range(0, num_rows, at_once)]
    blocks = iter(cuts)

    def take():
        for rows in blocks:
            work(rows)

    helpers = []
    try:
        with contextlib.suppress(RuntimeError):  # When the interpreter ends, no thread starts: the caller does it all.
            for _ in range(min(num_threads(), len(cuts)) - 1):
                helpers.append(pool().submit(take))
        take()
        for helper in helpers:
            helper.result()
    except BaseException:
        # Whatever broke off, Ctrl-C among it, helpers may still be writing into this thread's buffer: it is theirs now.
        SCRATCH.numbers = np.empty(0, dtype=np.float32)
        for _ in blocks:
            pass
        raise


class Scratch(threading.local):
    """Each thread's own buffer."""

    numbers = np.empty(0, dtype=np.float32)


SCRATCH = Scratch()


def scratch(size):
    """Give ``size`` float32 numbers of this thread's buffer, overwritten by the next product.

    The buffer grows and stays: fresh memory costs more than widening into it.  It starts where a cache line does.
    """
    if SCRATCH.numbers.size < size:
        longer = np.empty(size + 16, dtype=np.float32)
        SCRATCH.numbers = longer[-longer.ctypes.data % 64 // 4 :][:size]
    return SCRATCH.numbers[:size]


@functools.cache
def num_threads() -> int:
    """As many threads as BLAS was told to use, or as there are processors to run on."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        told = os.environ.get(name, "")
        if told.isascii() and told.isdecimal() and int(told) > 0:
            return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads that help the caller's, started at the first product with a stored matrix."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="npgemma")


# A forked child has none of the threads; Windows does not fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)
