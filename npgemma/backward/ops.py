"""The equations backwards.  Mirror of ``npgemma/ops.py``: ``f(d_y, what f took)`` gives the gradients of its arrays.

``soft_cap`` and ``softmax`` take what they gave, not what they took: their slope needs nothing else, and the logits
before the last cap have no name.  Gradients of matrices are left as two factors (:mod:`npgemma.backward.tape`).
Letters: as in ``npgemma/ops.py``.
"""

import math

import numpy as np

from npgemma.backward.tape import Product, Rows
from npgemma.base import blocks, half, products, threads

# Numbers of a stored matrix that are widened at once.
BLOCK = 1 << 22

# Beyond this GELU is x or 0 to the last bit of float64, and x**2 may overflow where the slope's other factor is 0.
FAR = 40.0


def over_rows(d):
    """Sum all leading axes: what a vector that is added to every row had to do with the result, (D)."""
    return np.sum(d.reshape(-1, d.shape[-1]), axis=0)


def mean_of_product(d, gain):
    """mean(d * gain) over each row, as a product with a vector: d (..., D), gain (D) -> (..., 1)."""
    return (d @ gain)[..., None] / gain.shape[0]


def in_order(x):
    """Lay rows out one after the other.

    A transposed product lies column after column, and NumPy then sums its last axis number by number instead of in
    pairs: in float32 the gradients of norms are off by 3e-5.
    """
    return np.ascontiguousarray(x, like=x)


def linear(d_y, x, weight):
    """Send the gradient back through a matrix; the bias's is :func:`over_rows` of ``d_y``.

    Parameters
    ----------
    d_y : (..., F)
    x : (..., D)
    weight : (F, D)
        Floats, or 16-bit as stored.

    Returns
    -------
    d_x : (..., D)
    d_weight : Product
        (F, D) when multiplied out.

    Notes
    -----
    y = x W^T, so dx = dy W and dW = dy^T x.
    """
    d_rows = d_y.reshape(-1, d_y.shape[-1])
    d_x = times(d_rows, weight).reshape(*d_y.shape[:-1], weight.shape[1])
    return d_x, Product(d_rows, x.reshape(-1, x.shape[-1]))


def times(d_rows, weight):
    """Multiply ``d_rows (T, F)`` by a matrix (F, D), widening some rows of a stored one at a time: (T, D).

    Where BLAS has one thread, ours take columns of the matrix, as they take its rows on the way forward.
    """
    F, D = weight.shape
    widened = half.is_stored(weight) or isinstance(weight, half.Wide)
    at_once = max(1, BLOCK // D) if widened else F
    d_x = np.zeros((d_rows.shape[0], D), dtype=d_rows.dtype, like=d_rows)

    def work(columns):
        for start in range(0, F, at_once):
            rows = slice(start, start + at_once)
            d_x[:, columns] += d_rows[:, rows] @ half.widen(weight[rows, columns])

    ours = isinstance(d_rows, np.ndarray) and threads.blas_threads() == 1
    products.share_rows(D, products.even_parts(D, products.ROWS_OF_BLOCK, 8) if ours else D, d_rows.size * D, work)
    return d_x


def embed(d_rows, ids, table):
    """Give back to each row of the table what its lookups received.

    Parameters
    ----------
    d_rows : (B, T, D)
    ids : (B, T)
    table : (V, D)

    Returns
    -------
    d_table : Rows
        (V, D) when added up; a row that was looked up twice gets both.
    """
    within = np.where(ids < table.shape[0], ids, 0)
    return Rows(within.reshape(-1), d_rows.reshape(-1, d_rows.shape[-1]), table.shape[0])


def splice(d_spliced, soft, places):
    """Give each place's gradient to what stood there: a soft token, or an embedded id.

    Parameters
    ----------
    d_spliced : (B, T, D)
    soft : (I, P, D)
    places : (B, T)

    Returns
    -------
    d_embedded : (B, T, D)
    d_soft : (I, P, D)
    """
    d_embedded = d_spliced.copy()
    d_embedded[places] = 0.0
    return d_embedded, d_spliced[places].reshape(soft.shape)


def split_heads(d_y):
    """Lay the heads side by side again: d_y (B, T, N, H) -> (B, T, N*H)."""
    return d_y.reshape(*d_y.shape[:2], -1)


def group_heads(d_y):
    """Put heads back into one axis: d_y (B, K, G, T, H) -> (B, T, N, H)."""
    B, K, G, T, H = d_y.shape
    return d_y.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)


def merge_heads(d_y, gathered):
    """Part the heads again: d_y (B, T, N*H) -> (B, K, G, T, H), the shape of ``gathered``."""
    B, K, G, T, H = gathered
    return d_y.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4)


def product(d_y, a, b):
    """Send the gradient of ``a @ b`` back to both; the heads of a group share b, which gets the sum of theirs.

    Parameters
    ----------
    d_y : (B, K, G, T, H)
    a : (B, K, G, T, S)
    b : (B, K, 1, S, H)

    Returns
    -------
    d_a : (B, K, G, T, S)
    d_b : (B, K, 1, S, H)
    """
    B, K, G, T, S = a.shape
    d_b = a.reshape(B, K, G * T, S).mT @ d_y.reshape(B, K, G * T, -1)
    return d_y @ b.mT, d_b[:, :, None]


def layer_norm(d_y, x, weight, bias, eps):
    """Find what each number of x, the gain and the bias had to do with y.

    Parameters
    ----------
    d_y : (..., C)
    x : (..., C)
    weight : (C)
    bias : (C)
    eps : float

    Returns
    -------
    d_x : (..., C)
    d_weight, d_bias : (C)

    Notes
    -----
    n = (x - mean) / std, g = dy * weight:  dx = (g - mean(g) - n * mean(g * n)) / std.
    """
    x = in_order(x)
    centred = x - np.mean(x, axis=-1, keepdims=True)
    rstd = 1.0 / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + eps)
    normed = centred * rstd
    d_gain = d_y * normed
    d_mean, d_std = mean_of_product(d_y, weight), mean_of_product(d_gain, weight)
    return rstd * (d_y * weight - d_mean - normed * d_std), over_rows(d_gain), over_rows(d_y)


def rms_norm(d_y, x, weight, eps):
    """Find what each number of x, and of the gain, had to do with y.

    Parameters
    ----------
    d_y : (..., D)
    x : (..., D)
    weight : (D)
    eps : float

    Returns
    -------
    d_x : (..., D)
    d_weight : (D)

    Notes
    -----
    n = x / rms, g = dy * (1 + weight):  dx = (g - n * mean(g * n)) / rms.
    """
    x = in_order(x)
    rstd = 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    normed = x * rstd
    d_gain, gain = d_y * normed, 1.0 + weight
    return rstd * (d_y * gain - normed * mean_of_product(d_gain, gain)), over_rows(d_gain)


def gelu(d_y, x):
    """Let the gradient through where GELU rises.

    Parameters
    ----------
    d_y : (..., F)
    x : (..., F)

    Returns
    -------
    d_x : (..., F)

    Notes
    -----
    y = x s, s = sigmoid(2u):  dx = dy * (s + 2 x s (1 - s) u'),  u' = sqrt(2/pi) * (1 + 3 * 0.044715 x**2).
    """
    return d_y * blocks.in_cache(slope_of_gelu, x, whole_rows=False)


def slope_of_gelu(x):
    """How steeply GELU rises: x (..., F)."""
    c = 2.0 * math.sqrt(2.0 / math.pi)
    near = np.clip(x, -FAR, FAR)  # Far out the slope is 0 * infinity in float32.
    square = near * near
    with np.errstate(over="ignore"):
        s = 1.0 / (1.0 + np.exp(near * (-c - 0.044715 * c * square)))
    return s + near * s * (1.0 - s) * (c + 3.0 * 0.044715 * c * square)


def soft_cap(d_y, y, cap):
    """Let less of the gradient through the nearer y is to the cap.

    Parameters
    ----------
    d_y : (...)
    y : (...)
        What :func:`npgemma.ops.soft_cap` gave.
    cap : float

    Returns
    -------
    d_x : (...)

    Notes
    -----
    y = cap tanh(x / cap):  dx = dy * (1 - (y / cap)**2).
    """
    return d_y * (1.0 - np.square(y / cap))


def softmax(d_p, p):
    """Raise a score where its weight was wanted more than the row's average.

    Parameters
    ----------
    d_p : (..., S)
    p : (..., S)
        What :func:`npgemma.ops.softmax` gave.

    Returns
    -------
    d_x : (..., S)
        Exactly 0 at masked keys, whose weight is 0: no mask is needed.

    Notes
    -----
    dx = p * (dp - sum(p * dp)).
    """
    d_p = in_order(d_p)
    return p * (d_p - np.sum(p * d_p, axis=-1, keepdims=True))


def patchify(d_flat, pixels, patch_size):
    """Lay the patches' gradients where they were cut out; a remainder of the picture gets 0.

    Parameters
    ----------
    d_flat : (I, P, 3*patch*patch)
    pixels : (I, R, R, 3)
    patch_size : int

    Returns
    -------
    d_pixels : (I, R, R, 3)
    """
    I, R = pixels.shape[:2]
    side = R // patch_size
    split = d_flat.reshape(I, side, side, 3, patch_size, patch_size)
    whole = split.transpose(0, 1, 4, 2, 5, 3).reshape(I, side * patch_size, side * patch_size, 3)
    rest = R - side * patch_size
    return np.pad(whole, ((0, 0), (0, rest), (0, rest), (0, 0)))
