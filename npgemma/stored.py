"""Matrices kept in 16 bits, as a checkpoint stores them, and the products with them.  Host memory only.

A ``uint16`` array holds bfloat16 bits, which NumPy has no type for; ``float16`` is NumPy's own.  Such a matrix is
widened block by block inside the product, never whole.  A step of generation reads every matrix once, so here it
runs at the speed of widening: several threads, each on its own rows (NumPy lets go of the interpreter in its loops).
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Numbers of one widened block, 4 MB of float32: in a cache that holds it between widening and the product, and large
# enough that threads rarely meet in the interpreter.
BLOCK = 1 << 20

# Columns of a block: a piece of x of this length stays in a core's first cache, and BLAS starts no threads of its own
# for so short a dot product.
COLUMNS = 2048

# With more rows of x than this, BLAS on widened blocks of so many rows beats dot products.
FEW_ROWS = 3
BLAS_ROWS = 512


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
    T, F = x.shape[0], weight.shape[0]
    y = np.empty((T, F), dtype=np.float32)
    if T <= FEW_ROWS:
        y[...] = 0.0
        each_thread(F, lambda start, stop: dot_rows(x, weight, y, start, stop))
    else:
        multiply_blocks(x, weight, y)
    return y


def dot_rows(x, weight, y, start, stop):
    """Add to ``y[:, start:stop]`` a dot product for each row of the matrix and of ``x``: one thread's work.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)
    y : (T, F)
        Written.
    start, stop : int
    """
    T, D = x.shape
    buffer = np.empty(BLOCK, dtype=np.float32)
    rows = max(1, BLOCK // min(D, COLUMNS))
    for first in range(start, stop, rows):
        for left in range(0, D, COLUMNS):
            bits = weight[first : min(first + rows, stop), left : left + COLUMNS]
            block = widen_into(buffer[: bits.size].reshape(bits.shape), bits)
            for t in range(T):
                y[t, first : first + len(bits)] += np.vecdot(block, x[t, left : left + COLUMNS])


def multiply_blocks(x, weight, y):
    """Fill ``y``: widen a block, then let BLAS multiply by it.

    One thread widens, a twentieth of the whole: BLAS's threads go on spinning between products, in the way of others.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)
    y : (T, F)
        Written.
    """
    F, D = weight.shape
    buffer = np.empty((min(F, BLAS_ROWS), D), dtype=np.float32)
    for first in range(0, F, BLAS_ROWS):
        bits = weight[first : first + BLAS_ROWS]
        block = widen_into(buffer[: len(bits)], bits)
        np.matmul(x, block.T, out=y[:, first : first + len(bits)])


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


def each_thread(length, work):
    """Run ``work(start, stop)`` on equal parts of ``range(length)``, one a thread, and wait for all."""
    threads = num_threads()
    bounds = [length * n // threads for n in range(threads + 1)]
    parts = [part for part in zip(bounds, bounds[1:], strict=False) if part[0] < part[1]]
    for done in [pool().submit(work, *part) for part in parts]:
        done.result()


@functools.cache
def num_threads() -> int:
    """As many threads as BLAS was told to use, or as there are processors to run on."""
    told = os.environ.get("OPENBLAS_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads, started at the first product with a stored matrix."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="npgemma")
