"""Work in pieces: an equation whose temporaries stay in the processor's cache, and one letter of a product cut up."""

import itertools

import numpy as np

from npgemma.base import products, threads

# An equation of many steps runs on about so many numbers at a time.
IN_CACHE = 1 << 16


def in_cache(equation, x, whole_rows=True):
    """Give ``equation(x)`` for x (..., D), made of pieces whose temporaries stay in the cache; the bits are the same.

    Parameters
    ----------
    equation : callable
        Takes and gives arrays (T, D) of floats.
    x : (..., D)
    whole_rows : bool
        Whether a row enters as one (softmax); if not, numbers enter as they lie in memory (GELU).

    Returns
    -------
    y : (..., D)
    """
    if not isinstance(x, np.ndarray):  # A GPU wants few launches, and has no such cache.
        return equation(x)
    rows = x.reshape(-1, x.shape[-1])
    lines = rows if whole_rows or rows.flags.c_contiguous else rows.T  # A transposed product lies column after column.
    y = np.empty_like(lines)

    def work(piece):
        y[piece] = equation(lines[piece])

    threads.share(lines.shape[0], max(1, IN_CACHE // lines.shape[1]), work)
    return (y if lines is rows else y.T).reshape(x.shape)


def cut(x, axes, letter, size):
    """Cut x along the axis called ``letter`` into pieces of at most ``size``, ``cut(q, "btnh", "t", 64)``.

    What is None comes as None for each piece.
    """
    if x is None:
        return itertools.repeat(None)
    axis = axes.index(letter)
    return np.split(x, range(size, x.shape[axis], size), axis=axis)


def join(pieces, axes, letter):
    """Put pieces together along the axis called ``letter``."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=axes.index(letter))


def product(a, b, axes, letter, size):
    """Give ``a @ b``, for at most ``size`` indices at a time of a's axis ``letter``, which is not its last.

    BLAS rounds differently for other shapes: a product in pieces has the bits that its pieces have alone.
    """
    return join([products.stacked(piece, b) for piece in cut(a, axes, letter, size)], axes, letter)
