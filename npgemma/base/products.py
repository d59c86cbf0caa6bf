"""Products of rows with a matrix that lies in memory row by row, float or kept in 16 bits.

All but :func:`on_card` is of the host's memory.

A step of generation has few rows, and reads every matrix once: it runs at the speed of memory if each piece of a matrix
serves all rows while it is near.  A prompt has many rows for each number of the matrix, and is BLAS's.

Letters: T rows of x, F rows of the matrix, D width, n pieces of a row, M rows of the matrix taken at once.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma.base import half, threads

# Up to so many rows of x, dot products are at least as fast as BLAS's product of matrices, which first copies the
# matrix into an order of its own.  One Zen 3 core, OpenBLAS 0.3.31, a float32 matrix of 16384 x 2048, ms of 1, 2, 4, 8
# and 12 rows: 6.6, 8.4, 12.8, 22 and 29; as products of matrices 6.2, 20, 22, 24 and 27.
FEW_ROWS = 12

# A tile of the matrix, read from memory for the first row and from the nearest caches for the others: 36 KB of float32
# (four rows of 2304, which BLAS takes side by side).  Of so many numbers BLAS starts its threads, where it has several.
# PaliGemma 2's 9216 x 2304 takes 2.6, 5.4 and 9.1 ms of 1, 4 and 8 rows (two Zen 3 cores); with the smaller tile, which
# cuts its rows in two, 3.0, 6.6 and 11.1.
TILE, TILE_BESIDE_THREADS = 9216, 8192
ROWS_OF_TILE = 4
# Of a single row in several pieces, BLAS takes so many rows of a float32 matrix at a call: 128 lose a tenth, for its
# next piece lies beside what was read, four a fiftieth by starting it.  Of a block just widened it takes all rows.
ROWS_OF_STRIP = 32

# Numbers of one block of dot products, at most: in smaller ones a step of one row loses up to a fifth by starting them.
BLOCK = 1 << 22
# Numbers of one block of a single row's product, at most: 64 MB of float32, a few milliseconds.
BLOCK_OF_ROW = 1 << 24
# Numbers of one block that is widened: 4 MB of float32, still in a cache when they are used.
BLOCK_WIDENED = 1 << 20

# Multiplications that the caller does alone, at most: in a model as small as the one in the box, waking a thread takes
# longer than a product.
ALONE = 1 << 20

# Rows of the matrix in one block of a product with many rows, at most.  BLAS copies x anew for each block: a fiftieth
# of the time here, a fifteenth for 256 rows.
ROWS_OF_BLOCK = 1024

# Numbers widened before one call of BLAS where its own threads share the product, 134 MB: short calls lose time where
# they wait for each other.
BLOCK_FOR_BLAS = 1 << 25

# Numbers widened at once on a graphics card, 256 MB: the largest matrix of a block, and a small part of the table.
BLOCK_ON_CARD = 1 << 26


@dataclass(frozen=True)
class Known:
    """Stands for a matrix (F, D) whose product with the rows that come is known: (T, F), of the dtype of both."""

    product: Any

    @property
    def shape(self):
        """F alone: nobody reads the matrix."""
        return self.product.shape[1:]

    @property
    def dtype(self):
        """Of the product."""
        return self.product.dtype


def linear_plain(x, weight):
    """Multiply the plain way, widening a stored matrix whole: what :func:`linear` must equal but for rounding.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)

    Returns
    -------
    y : (T, F)
    """
    return x @ half.widen(weight).T


def linear(x, weight):
    """Multiply rows by a matrix stored as ``(out, in)``, which is read, and widened, block by block.

    Parameters
    ----------
    x : (T, D)
    weight : (F, D)
        Floats, bfloat16 bits or float16; or what stands for it, :class:`Known`.

    Returns
    -------
    y : (T, F)
        ``x @ weight.T``.  Of up to :data:`FEW_ROWS` rows, each has the bits that it has alone.
    """
    if isinstance(weight, Known):
        return weight.product
    if isinstance(weight, half.Wide):
        return by_dots(x, weight) if x.shape[0] <= FEW_ROWS else by_blocks(x, weight)
    if not isinstance(weight, np.ndarray):
        return on_card(x, weight)
    if x.shape[0] == 1 and cuts_evenly(weight):
        return by_pieces(x, weight)
    if x.shape[0] <= FEW_ROWS:
        return by_dots(x, weight)
    if threads.blas_threads() == 1:
        return by_blocks(x, weight)
    # Transposed, BLAS takes half the time, as a median over the models' matrices and 13 to 261 rows, with other bits.
    return by_blas(x, weight) if half.is_stored(weight) else (weight @ x.T).T


def by_pieces(x, weight):
    """Multiply one row, in pieces of its numbers: x (1, D), weight (F, D) -> (1, F).

    Sooner than by tiles, for BLAS copies x at each call; each dot product has the bits that :func:`by_dots` gives.
    """
    F, D = weight.shape
    n, serial, stored = num_pieces(D), threads.blas_threads() == 1, half.is_stored(weight)
    M = ROWS_OF_STRIP if n > 1 and serial and not stored else F
    pieces = x.reshape(n, 1, D // n)
    y = np.empty((1, F), dtype=np.result_type(x, half.widen(weight[:0])))

    def work(rows):
        block = half.floats(weight[rows])
        if n == 1:
            y[0, rows] = block @ x[0]
        else:
            put_dots(y[:, rows], pieces, block, M)

    at_most = max(1, (BLOCK_WIDENED if stored else BLOCK_OF_ROW) // D)
    share_rows(F, even_parts(F, at_most, ROWS_OF_TILE) if serial else F, F * D, work)
    return y


def cuts_evenly(weight) -> bool:
    """Tell whether BLAS takes all rows four by four, and can share them: the last ones it adds in another order.

    Rows of a stored matrix are widened by our threads, and BLAS's threads would wait for one another in each block.
    """
    number = threads.blas_threads()
    return weight.shape[0] % (ROWS_OF_TILE * number) == 0 and (number == 1 or not half.is_stored(weight))


def on_card(x, weight):
    """Multiply on a graphics card, widening some rows of a stored matrix at a time: x (T, D), weight (F, D) -> (T, F).

    CuPy has no product of bfloat16 bits with float32, so that a stored matrix costs reading it, writing it and reading
    it again.
    """
    if not half.is_stored(weight):
        return x @ weight.T
    F, D = weight.shape
    M = max(1, BLOCK_ON_CARD // D)
    return np.concatenate([x @ half.widen_once(weight[first : first + M]).T for first in range(0, F, M)], axis=1)


def by_dots(x, weight):
    """Multiply few rows, each by dot products: x (T, D), weight (F, D) -> (T, F)."""
    T, (F, D) = x.shape[0], weight.shape
    y = np.empty((T, F), dtype=np.result_type(x, half.widen(weight[:0])))
    n = num_pieces(D)
    M = max(ROWS_OF_TILE, tile() // (D // n) // ROWS_OF_TILE * ROWS_OF_TILE)
    pieces = np.ascontiguousarray(x.reshape(T, n, D // n).swapaxes(0, 1))

    def work(rows):
        put_dots(y[:, rows], pieces, half.floats(weight[rows]), M)

    at_most = BLOCK_WIDENED if half.is_stored(weight) else BLOCK
    share_rows(F, even_parts(F, max(1, at_most // D), M), T * F * D, work)
    return y


def put_dots(y, pieces, block, M):
    """Write :func:`dots` into y (T, F), M rows of the block at once, and what is left of them last."""
    F = len(block)
    M = min(M, F)
    for part in (slice(0, F // M * M), slice(F // M * M, F)):
        if part.stop > part.start:
            y[:, part] = dots(pieces, block[part], min(M, part.stop - part.start))


def dots(pieces, block, M):
    """Take the dot product of each row of x, in pieces (n, T, D/n), and each of the block (F, D), M at once: (T, F).

    Each tile (M, D/n) of the block serves all rows of x in turn, each with a sum of its own.
    """
    n, T, width = pieces.shape
    tiles = block.reshape(-1, 1, M, n, width).transpose(0, 3, 1, 2, 4)
    sums = np.matvec(tiles, pieces)  # (F/M, n, T, M)
    total = functools.reduce(np.add, np.moveaxis(sums, 1, 0))
    return total.swapaxes(0, 1).reshape(T, -1)


def tile() -> int:
    """How many numbers of the matrix BLAS takes at once."""
    return TILE if threads.blas_threads() == 1 else TILE_BESIDE_THREADS


def num_pieces(D) -> int:
    """In how many equal pieces a row of D numbers is multiplied; one for an uneven D."""
    least = -(-D * ROWS_OF_TILE // tile())
    return next((n for n in range(least, 4 * least) if D % n == 0), 1)


def by_blocks(x, weight):
    """Multiply many rows, our threads taking block after block of the matrix: x (T, D), weight (F, D) -> (T, F)."""
    F = weight.shape[0]
    y = np.empty((F, x.shape[0]), dtype=np.result_type(x, half.widen(weight[:0])))

    def work(rows):
        np.matmul(half.floats(weight[rows]), x.T, out=y[rows])

    share_rows(F, even_parts(F, ROWS_OF_BLOCK, 8), x.size * F, work)
    return y.T


def share_rows(F, part, multiplications, work) -> None:
    """Run ``work(slice)`` on parts of F rows, shared among threads if it is worth waking them."""
    threads.share(F, F if multiplications <= ALONE else part, work)


def even_parts(F, at_most, multiple) -> int:
    """Cut F rows into parts of nearly one size, as many for each thread: rows of a part, but for the last."""
    number = threads.num_threads() * -(-F // (threads.num_threads() * at_most))
    return -(-F // (number * multiple)) * multiple


def by_blas(x, weight):
    """Widen all rows, or as many as the buffer takes, and let BLAS's threads multiply: (T, D), (F, D) -> (T, F)."""
    F, D = weight.shape
    y = np.empty((F, x.shape[0]), dtype=np.float32)
    num_rows = min(F, max(1, BLOCK_FOR_BLAS // D))
    block = half.scratch((num_rows, D))
    for first in range(0, F, num_rows):
        bits = weight[first : first + num_rows]

        def work(rows, bits=bits):
            half.widen_into(block[rows], bits[rows])

        try:
            threads.share(len(bits), max(1, BLOCK_WIDENED // D), work)
        except BaseException:
            half.forget_scratch()  # helpers may still be writing into it
            raise
        np.matmul(block[: len(bits)], x.T, out=y[first : first + num_rows])
    return y.T


def stacked(a, b):
    """Give ``a @ b`` for stacks of matrices; where BLAS has one thread, ours take matrix after matrix: the same bits.

    Parameters
    ----------
    a : (..., T, H)
    b : (..., H, S)

    Returns
    -------
    product : (..., T, S)
    """
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*leading, a.shape[-2], b.shape[-1])
    if not isinstance(a, np.ndarray) or math.prod(shape) * a.shape[-1] < BLOCK or threads.blas_threads() > 1:
        return a @ b
    places = list(np.ndindex(leading))
    lefts, rights = (np.broadcast_to(x, leading + x.shape[-2:]) for x in (a, b))
    product = np.empty(shape, dtype=np.result_type(a, b))

    def work(piece):
        for place in places[piece]:
            np.matmul(lefts[place], rights[place], out=product[place])

    threads.share(len(places), 1, work)
    return product
