"""The equations of both towers: arrays and numbers in, arrays out, each the line of its paper.

Every equation computes in the dtype of its input.  Constants are Python floats, which promote nothing.  Letters: see
each function; ``...`` stands for any leading axes.  Arguments are never written.
"""

import math

import numpy as np

from npgemma.base import half, products


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
    product = products.linear(x.reshape(-1, x.shape[-1]), weight)
    shaped = product.reshape(*x.shape[:-1], weight.shape[0])
    return shaped if bias is None else shaped + bias


def embed(ids, table):
    """Look up a row of the table for each id: ids (B, T), table (V, D) -> (B, T, D).

    An image token may lie beyond the table: it reads row 0, and is replaced later, as in transformers' PaliGemmaModel.
    """
    return half.widen(table[np.where(ids < table.shape[0], ids, 0)])


def splice(embedded, soft, places):
    """Put soft tokens, unscaled, where image tokens stand.

    Parameters
    ----------
    embedded : (B, T, D)
    soft : (I, P, D)
    places : (B, T)
        True at I*P places, taken in order.

    Returns
    -------
    spliced : (B, T, D)

    Notes
    -----
    Reference: transformers modeling_paligemma.py, masked_scatter in PaliGemmaModel.
    """
    spliced = embedded.copy()
    spliced[places] = soft.reshape(-1, soft.shape[-1])
    return spliced


def split_heads(x, num_heads):
    """Give each head its own axis: x (B, T, N*H) -> (B, T, N, H)."""
    return x.reshape(*x.shape[:2], num_heads, -1)


def group_heads(x, num_kv_heads):
    """Put heads that share keys and values together: x (B, T, N, H) -> (B, K, G, T, H); keys themselves get G = 1."""
    B, T, N, H = x.shape
    # Query head n reads key/value head n // G, so K comes before G when N is split.
    return x.reshape(B, T, num_kv_heads, N // num_kv_heads, H).transpose(0, 2, 3, 1, 4)


def merge_heads(gathered):
    """Lay the heads of each position side by side: gathered (B, K, G, T, H) -> (B, T, K*G*H)."""
    B, _, _, T, _ = gathered.shape
    return gathered.transpose(0, 3, 1, 2, 4).reshape(B, T, -1)


def layer_norm(x, weight, bias, eps):
    """Shift and scale each vector to mean 0 and variance 1, then apply a gain and a bias.

    Parameters
    ----------
    x : (..., C)
    weight, bias : (C)
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
    """Let positive values through and damp negative ones, GELU in its tanh approximation: x (..., F) -> (..., F).

    Notes
    -----
    y = x / 2 * (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) * (x + 0.044715 x**3).  Hendrycks & Gimpel 2016,
    sec. 2.  The tanh form, PyTorch's, loses its negative tail: 1 + tanh(u) cancels to 0 below x = -5.
    Reference: torch.nn.functional.gelu(approximate="tanh").
    """
    with np.errstate(over="ignore"):  # Far out, x**3 and exp(-2u) overflow to infinities that give x and -0.
        u = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
        return x / (1.0 + np.exp(-2.0 * u))


def soft_cap(x, cap, inner):
    """Bound values smoothly to (-cap, cap); ``inner`` rounds what eager PyTorch materialises on the way.

    Notes
    -----
    y = cap * tanh(x / cap).  Gemma Team 2024, sec. 2.  Reference: transformers modeling_gemma2.py.
    """
    return inner(np.tanh(inner(x / cap))) * cap


def softmax(x):
    """Turn scores into weights that are positive and sum to one over the last axis: x (..., S) -> (..., S).

    Notes
    -----
    p = exp(x - max(x)) / sum(exp(x - max(x))).  Reference: torch.nn.functional.softmax.
    """
    unnormalised = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return unnormalised / np.sum(unnormalised, axis=-1, keepdims=True)


def patchify(pixels, patch_size):
    """Cut pictures into square patches, row by row, each flattened as channel, row, column: pixels (I, R, R, 3).

    A convolution whose stride is its kernel's size is this reshape and one matrix product; what remains of R is left
    out, as by a convolution without padding.  Reference: transformers modeling_siglip.py, SiglipVisionEmbeddings.
    """
    I, R = pixels.shape[:2]
    side = R // patch_size
    whole = pixels[:, : side * patch_size, : side * patch_size]
    split = whole.reshape(I, side, patch_size, side, patch_size, 3)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(I, side * side, 3 * patch_size**2)


def last_real(x, attention_mask):
    """Take each row's last position that is not padding: x (B, T, D), attention_mask (B, T) -> (B, 1, D)."""
    B, T = attention_mask.shape
    last = T - 1 - np.argmax(attention_mask[:, ::-1] != 0, axis=1)
    return x[np.arange(B, like=last)[:, None], last[:, None]]
