"""Rotary position embedding: angles for positions, and the rotation of queries and keys (Su et al. 2021).

The half-split layout of Hugging Face and big_vision: channel i turns with channel i + H/2.  No scaling of frequencies
(``rope_type`` other than ``default``) is supported.
"""

import numpy as np


def angles(positions, head_dim, theta, dtype):
    """Give the angles by which each position turns, in radians.

    Parameters
    ----------
    positions : (B, T)
        Integers.
    head_dim : int
        H, even.
    theta : float
        Base of the frequencies, 10000.
    dtype : type
        ``np.float64``, or ``np.float32`` to round as PyTorch's float32 does.

    Returns
    -------
    radians : (B, T, H/2)

    Notes
    -----
    position / theta**(2i/H), i = 0..H/2-1.  Su et al. 2021, sec. 3.2.2.
    Reference: transformers modeling_gemma.py, GemmaRotaryEmbedding.
    """
    exponents = np.arange(0, head_dim, 2, like=positions).astype(dtype) / head_dim
    # PyTorch's pow(float, float32 tensor) is right to the last bit, NumPy's float32 power is not: go through float64.
    powers = (theta ** exponents.astype(np.float64)).astype(dtype)
    # PyTorch multiplies by 1 / powers, its inv_freq; dividing by powers moves a cosine by 2e-4 at position 4000.
    return positions.astype(dtype)[..., None] * (1.0 / powers)


def rotate(x, cos, sin, inner):
    """Turn each pair of channels (i, i + H/2) by its angle; ``inner`` rounds the products, as eager PyTorch does.

    Parameters
    ----------
    x : (B, T, N, H)
    cos, sin : (B, T, H/2)

    Returns
    -------
    y : (B, T, N, H)

    Notes
    -----
    y = [a cos - b sin, b cos + a sin] with x = [a, b].  Su et al. 2021, eq. 34 (with adjacent pairs there).
    Reference: transformers modeling_gemma.py, apply_rotary_pos_emb.
    """
    first, second = np.split(x, 2, axis=-1)
    c, s = cos[:, :, None], sin[:, :, None]
    turned_first = inner(first * c) - inner(second * s)
    turned_second = inner(second * c) + inner(first * s)
    return np.concatenate([turned_first, turned_second], axis=-1)
