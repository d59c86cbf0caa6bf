"""Matrices kept in 16 bits, as a checkpoint stores them, and the products with them.  Host memory only.

A ``uint16`` array holds bfloat16 bits, which NumPy has no type for; ``float16`` is NumPy's own.  Such a matrix is
widened block by block inside the product, never whole.  A step of generation reads every matrix once, so here it
runs at the speed of widening: several threads, each on its own rows (NumPy lets go of the interpreter in its loops).
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

# Numbers of one widened block: 1 MB of float32 stays in a core's cache between widening and the product.
BLOCK = 1 << 18

# With more rows of x than this, BLAS on widened blocks beats a dot product for each pair of rows.
FEW_ROWS = 3

# A BLAS block is larger, or its start-up shows: 8 MB.
BLAS_BLOCK = 1 << 21

HIGH_HALF = np.uint32(0xFFFF0000)


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
    T, D = x.shape
    F = weight.shape[0]
    paired = weight.dtype == np.uint16 and D % 2 == 0
    order = x.reshape(T, D // 2, 2).transpose(0, 2, 1).reshape(T, D) if paired else x
    y = np.empty((T, F), dtype=np.float32)
    if T <= FEW_ROWS:
        each_thread(F, lambda start, stop: dot_rows(order, weight, y, start, stop, paired))
    else:
        multiply_blocks(order, weight, y, paired)
    return y


def dot_rows(x, weight, y, start, stop, paired):
    """Fill ``y[:, start:stop]``, one dot product for each row of the matrix and of ``x``: the work of one thread.

    ``np.vecdot`` calls a BLAS that starts no threads of its own for vectors of up to 10,000 numbers; so each vector
    is cut in two.
    """
    T, D = x.shape
    cuts = 2 if D % 2 == 0 else 1
    x_cut = x.reshape(T, cuts, D // cuts)
    rows = max(1, BLOCK // D)
    buffer = np.empty((rows, D), dtype=np.float32)
    for first in range(start, stop, rows):
        last = min(first + rows, stop)
        block = widen_into(buffer[: last - first], weight[first:last], paired)
        block_cut = block.reshape(-1, cuts, D // cuts)
        for t in range(T):
            y[t, first:last] = np.vecdot(block_cut, x_cut[t]).sum(axis=-1)


def multiply_blocks(x, weight, y, paired):
    """Fill ``y``: all threads widen a block, then BLAS multiplies by it with threads of its own."""
    F, D = weight.shape
    rows = max(1, BLAS_BLOCK // D)
    buffer = np.empty((rows, D), dtype=np.float32)
    for first in range(0, F, rows):
        bits = weight[first : first + rows]
        block = buffer[: len(bits)]
        each_thread(len(bits), lambda a, b: widen_into(block[a:b], bits[a:b], paired))  # noqa: B023
        y[:, first : first + len(bits)] = x @ block.T


def widen_into(block, bits, paired):
    """Widen rows of a stored matrix into ``block``.

    Two neighbouring bfloat16 numbers read as one uint32 give both their float32 with one shift and one mask; the
    block then holds the even columns of each row before the odd ones, the order that ``x`` was brought to.

    Parameters
    ----------
    block : (F, D)
        float32, written.
    bits : (F, D)
    paired : bool

    Returns
    -------
    block : (F, D)
    """
    if not paired:
        block[...] = widen(bits)
        return block
    F, D = bits.shape
    halves = block.view(np.uint32).reshape(F, 2, D // 2)
    pairs = bits.view(np.uint32)
    np.left_shift(pairs, 16, out=halves[:, 0])
    np.bitwise_and(pairs, HIGH_HALF, out=halves[:, 1])
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
    return int(told) if told.isdigit() and int(told) > 0 else len(os.sched_getaffinity(0))


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads, started at the first product with a stored matrix."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="npgemma")
