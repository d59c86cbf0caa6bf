"""Work in pieces: an equation whose temporaries stay in the processor's cache, and one letter of a product cut up."""

import itertools

import numpy as np

from npgemma.base import products, threads

# An equation of many steps runs on about so many numbers at a time.
IN_CACHE = 1 << 16

# Scores of one piece of attention, at least, so that a thread is worth waking: 1 MB of float32.
SCORES_NEAR = 1 << 18


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


def heads_and_rows(q, k, v, mask, rows):
    """Cut attention into heads, and each into at most so many queries: lists of (q, k, v, mask), a list a head.

    A product's bits are those of its whole, which BLAS makes head after head.  Small scores stay whole, and so do those
    of one query; a graphics card, which wants few launches, takes all heads at once.

    Parameters
    ----------
    q : (B, T, N, H)
    k, v : (B, S, K, H)
    mask : (B, T, S) or None
    rows : int
    """
    B, T, N, _ = q.shape
    S, K = k.shape[1:3]
    heads = [(q, k, v)]
    if isinstance(q, np.ndarray) and T > 1 and B * N * T * S > SCORES_NEAR:
        shared = list(zip(cut(k, "bskh", "k", 1), cut(v, "bskh", "k", 1), strict=True))
        heads = [(one, *shared[n * K // N]) for n, one in enumerate(cut(q, "btnh", "n", 1))]
    return [[(few, keys, values, seen) for few, seen in zip(cut(one, "btnh", "t", rows), cut(mask, "bts", "t", rows))]
            for one, keys, values in heads]


def workers() -> int:
    """Pieces of attention that are worked on at the same time."""
    return threads.num_threads() if threads.blas_threads() == 1 else 1


def attended(heads, attend):
    """Let ``attend(q, k, v, mask)`` work on each piece of :func:`heads_and_rows`: mixed (B, T, N*H).

    Our threads take piece after piece, unless BLAS's share each product.
    """
    pieces = [piece for head in heads for piece in head]
    mixed = [None] * len(pieces)

    def work(these):
        for place in range(these.start, these.stop):
            mixed[place] = attend(*pieces[place])

    threads.share(len(pieces), 1 if workers() > 1 else len(pieces), work)
    each = len(heads[0])
    return join([join(mixed[first : first + each], "btd", "t") for first in range(0, len(pieces), each)], "btd", "d")


def product(a, b, axes, letter, size):
    """Give ``a @ b``, for at most ``size`` indices at a time of a's axis ``letter``, which is not its last.

    BLAS rounds differently for other shapes: a product in pieces has the bits that its pieces have alone.
    """
    return join([products.stacked(piece, b) for piece in cut(a, axes, letter, size)], axes, letter)
