"""The equations of both towers: arrays and numbers in, arrays out.

Every equation computes in the dtype of its input.  Constants are Python floats, which promote nothing.  Letters: see
each function; ``...`` stands for any leading axes.  Arguments are never written.
"""

import math

import numpy as np

from npgemma.base import half

# Below every score, in float32 and so in all precisions.  Finite, so that a row with nothing to look at becomes
# uniform, as in PyTorch, and not NaN.
BIG_NEG = -3.4028234663852886e38

# Up to so many rows a product is left to NumPy's own loops.
FEW_ROWS = 16

# An equation of many steps runs on about so many numbers at a time, whose temporaries stay in the processor's cache.
IN_CACHE = 1 << 16


def linear(x, weight, bias=None):
    """Multiply by a matrix stored as ``(out, in)``, and add a bias.

    Parameters
    ----------
    x : (..., D)
    weight : (F, D)
        Floats, or a matrix kept in 16 bits (bfloat16 bits as uint16, or float16), which is widened block by block.
    bias : (F), optional
        Added before the one rounding of the product.

    Returns
    -------
    y : (..., F)

    Notes
    -----
    y = x @ weight.T + bias.  The only place that multiplies by a stored matrix.
    Reference: torch.nn.functional.linear.
    """
    # One call of BLAS for all leading indices; it gives the transposed product the same bits, a tenth sooner.
    rows = x.reshape(-1, x.shape[-1])
    product = half.linear(rows, weight) if half.is_stored(weight) else (weight @ rows.T).T
    shaped = product.reshape(*x.shape[:-1], weight.shape[0])
    return shaped if bias is None else shaped + bias


def embed(ids, table):
    """Look up a row of the table for each id.

    Parameters
    ----------
    ids : (B, T)
        Integers in 0..V-1, checked by the caller: a negative id would count from the end.
    table : (V, D)
        Floats or 16-bit as stored; only the rows looked up are widened.

    Returns
    -------
    rows : (B, T, D)
    """
    return half.widen(table[ids])


def einsum(spec, a, b):
    """Multiply two arrays as ``spec`` says, by BLAS.

    Parameters
    ----------
    spec : str
        ``"btkgh,bskh->bkgts"``: letters that stand in all three are looped over, letters missing from the result are
        summed over.
    a, b : array

    Returns
    -------
    product : array

    Notes
    -----
    ``np.einsum`` without ``optimize`` sums in its own loops, ten times slower than BLAS; for the few rows of a step
    that is less than what BLAS's threads cost, which go on spinning in the way of other threads.
    """
    inputs, output = spec.split("->")
    in_a, in_b = inputs.split(",")
    sizes = dict(zip(in_a, a.shape, strict=True)) | dict(zip(in_b, b.shape, strict=True))
    batch = [letter for letter in output if letter in in_a and letter in in_b]
    only_a = [letter for letter in output if letter not in in_b]
    only_b = [letter for letter in output if letter not in in_a]
    summed = [letter for letter in in_a if letter not in output]

    rows, columns, depth = (math.prod(sizes[letter] for letter in group) for group in (only_a, only_b, summed))
    batch_shape = [sizes[letter] for letter in batch]
    if rows <= FEW_ROWS:  # How numbers lie in memory decides the order of sums: a slice lies as a whole array does.
        return np.einsum(spec, a.copy(), b).copy()
    left = a.transpose([in_a.index(letter) for letter in batch + only_a + summed])
    right = b.transpose([in_b.index(letter) for letter in batch + summed + only_b])
    product = left.reshape(*batch_shape, rows, depth) @ right.reshape(*batch_shape, depth, columns)
    made = batch + only_a + only_b
    shaped = product.reshape([sizes[letter] for letter in made])
    return shaped.transpose([made.index(letter) for letter in output])


def layer_norm(x, weight, bias, eps):
    """Shift and scale each vector to mean 0 and variance 1, then apply a gain and a bias.

    Parameters
    ----------
    x : (..., C)
    weight : (C)
    bias : (C)
    eps : float
        Added to the variance, inside the root.

    Returns
    -------
    y : (..., C)

    Notes
    -----
    y = (x - mean) / sqrt(var + eps) * weight + bias, var biased, in two passes.  Ba et al. 2016, eq. 3.
    Reference: torch.nn.LayerNorm.
    """
    centred = x - np.mean(x, axis=-1, keepdims=True)
    rstd = 1.0 / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + eps)
    return centred * rstd * weight + bias


def rms_norm(x, weight, eps):
    """Scale each vector to unit root-mean-square, then by ``1 + weight``.

    Parameters
    ----------
    x : (..., D)
    weight : (D)
        Stored as an offset from one (Gemma), unlike Llama's plain gain.
    eps : float
        Added to the mean square, inside the root.

    Returns
    -------
    y : (..., D)

    Notes
    -----
    y = x / sqrt(mean(x**2) + eps) * (1 + weight).  Zhang & Sennrich 2019, eq. 4.
    Reference: transformers modeling_gemma.py, GemmaRMSNorm.
    """
    rstd = 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    return x * rstd * (1.0 + weight)


def gelu(x):
    """Let positive values through and damp negative ones: GELU in its tanh approximation.

    Parameters
    ----------
    x : (..., F)

    Returns
    -------
    y : (..., F)

    Notes
    -----
    y = x / 2 * (1 + tanh(u)) = x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x**3).  Hendrycks & Gimpel 2016, sec. 2.
    The tanh form, PyTorch's, loses its negative tail: 1 + tanh(u) cancels to 0 below x = -5.
    Reference: torch.nn.functional.gelu(approximate="tanh").
    """
    rows = x.reshape(-1, x.shape[-1])
    lines = rows if rows.flags.c_contiguous else rows.T  # A transposed product lies column after column.
    y = np.empty_like(lines)
    with np.errstate(over="ignore"):  # Far out, x**3 and exp(-2u) overflow to infinities that give x and -0.
        for block in blocks_in_cache(lines):
            part = lines[block]
            doubled = 2.0 * math.sqrt(2.0 / math.pi) * (part + 0.044715 * (part * part * part))
            y[block] = part / (1.0 + np.exp(-doubled))
    return (y if lines is rows else y.T).reshape(x.shape)


def soft_cap(x, cap, inner):
    """Bound values smoothly to (-cap, cap).

    Parameters
    ----------
    x : (...)
    cap : float
        > 0.
    inner : callable
        Rounds the quotient and the tangent, which eager PyTorch materialises.

    Returns
    -------
    y : (...)

    Notes
    -----
    y = cap * tanh(x / cap).  Gemma Team 2024, sec. 2.  Reference: transformers modeling_gemma2.py.
    """
    return inner(np.tanh(inner(x / cap))) * cap


def softmax(x, mask=None):
    """Turn scores into weights that are positive and sum to one over the last axis.

    Parameters
    ----------
    x : (..., S)
    mask : (..., S), optional
        True where a key counts.  A row with no key at all becomes uniform.

    Returns
    -------
    p : (..., S)

    Notes
    -----
    p = exp(x - max(x)) / sum(exp(x - max(x))).
    Reference: torch.nn.functional.softmax on scores plus transformers' additive mask.
    """
    masked = x if mask is None else np.where(mask, x, BIG_NEG)
    rows = masked.reshape(-1, masked.shape[-1])
    p = np.empty_like(rows)
    for block in blocks_in_cache(rows):
        unnormalised = np.exp(rows[block] - np.max(rows[block], axis=-1, keepdims=True))
        p[block] = unnormalised / np.sum(unnormalised, axis=-1, keepdims=True)
    return p.reshape(masked.shape)


def blocks_in_cache(rows):
    """Cut rows (T, D) into slices whose temporaries stay in the cache; on a GPU, one slice of all, for few launches."""
    at_once = max(1, IN_CACHE // rows.shape[1]) if isinstance(rows, np.ndarray) else rows.shape[0]
    return [slice(start, start + at_once) for start in range(0, rows.shape[0], at_once)]


def patchify(pixels, patch_size):
    """Cut each picture into square patches, row by row, each flattened as channel, row, column.

    Parameters
    ----------
    pixels : (I, R, R, 3)
        Pictures, in [-1, 1].
    patch_size : int
        Side of a patch in pixels.  A remainder of R is left out, as a convolution without padding does.

    Returns
    -------
    flat : (I, P, 3*patch*patch)

    Notes
    -----
    A convolution whose stride is its kernel's size is this reshape and one matrix product.
    Reference: transformers modeling_siglip.py, SiglipVisionEmbeddings.
    """
    I, R = pixels.shape[:2]
    side = R // patch_size
    whole = pixels[:, : side * patch_size, : side * patch_size]
    split = whole.reshape(I, side, patch_size, side, patch_size, 3)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(I, side * side, 3 * patch_size**2)
