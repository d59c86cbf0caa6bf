"""One attention for both towers: multi-head is G = 1, multi-query is K = 1.

Letters: B batch, T queries, S keys, N query heads, K key/value heads, G = N / K query heads a key/value head, H head
size.  Dropout and attention biases in the decoder are not supported.
"""

import numpy as np

from npgemma import ops, rotary
from npgemma.base import cache
from npgemma.base.errors import InputError

# When nobody observes, attention runs on so many queries at a time as make at most this many scores (64 MB in float32):
# at 896 pixels one layer's whole scores are 1.07 GB.
SCORES_AT_ONCE = 1 << 24


def attend(q, k, v, mask, w, cfg):
    """Let each query gather the values of the keys it resembles.

    Parameters
    ----------
    q : (B, T, N, H)
    k : (B, S, K, H)
    v : (B, S, K, H)
    mask : (B, T, S) or None
        True where query t may look at key s; None where all may look at all.
    w : Weights
        Reads no weight; names, rounds and shows the tensors.
    cfg : TextConfig or VisionConfig
        ``query_scale`` and ``attn_softcap``.

    Returns
    -------
    mixed : (B, T, N*H)

    Notes
    -----
    mixed = softmax(cap(q k^T * scale)) v, head n reading key/value head n // G.  Vaswani et al. 2017, eq. 1; Shazeer
    2019.  Reference: transformers modeling_gemma2.py, eager_attention_forward.
    """
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    block = max(1, SCORES_AT_ONCE // (B * N * S))
    if T > block and w.observe is None:
        cuts = [slice(start, start + block) for start in range(0, T, block)]
        masks = [None if mask is None else mask[:, rows] for rows in cuts]
        pieces = [attend(q[:, rows], k, v, part, w, cfg) for rows, part in zip(cuts, masks, strict=True)]
        return np.concatenate(pieces, axis=1)

    # Query head n reads key/value head n // G, so K comes before G when N is split.
    grouped = q.reshape(B, T, K, N // K, H)
    product = w.inner(in_row_blocks("btkgh,bskh->bkgts", grouped, k, 1, 3, block))
    scores = w.keep("scores", product * cfg.query_scale)
    capped = scores if cfg.attn_softcap is None else w.keep("capped", ops.soft_cap(scores, cfg.attn_softcap, w.inner))
    probs = w.keep("probs", ops.softmax(capped, None if mask is None else mask[:, None, None]))
    gathered = in_row_blocks("bkgts,bskh->btkgh", probs, v, 3, 1, block)
    return w.keep("mixed", gathered.reshape(B, T, N * H))


def in_row_blocks(spec, a, b, axis, out_axis, block):
    """Multiply as :func:`ops.einsum`, ``block`` rows of ``a`` at a time.

    An observed run needs whole scores, yet must equal an unobserved one to the last bit; BLAS rounds differently for
    other shapes, so both multiply the same blocks.

    Parameters
    ----------
    spec : str
    a, b : array
    axis, out_axis : int
        The axis of the queries in ``a`` and in the product.
    block : int

    Returns
    -------
    product : array
    """
    cuts = range(block, a.shape[axis], block)
    pieces = [ops.einsum(spec, piece, b) for piece in np.split(a, cuts, axis=axis)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=out_axis)


def attention(x, w, cfg, mask, cos, sin, past=None):
    """Grouped-query attention with rotary positions, of the decoder.

    Parameters
    ----------
    x : (B, T, D)
    w : Weights
        ``q.weight (N*H, D)``, ``k.weight (K*H, D)``, ``v.weight (K*H, D)``, ``out.weight (D, N*H)``.
    cfg : TextConfig
    mask : (B, T, S)
        True where query t may look at key s.
    cos : (B, T, H/2)
    sin : (B, T, H/2)
    past : Past, optional
        Keys and values of the S - T positions before this call.

    Returns
    -------
    out : (B, T, D)
    present : Past
        Keys and values of all S positions.

    Raises
    ------
    InputError
        If the mask does not fit.

    Notes
    -----
    Ainslie et al. 2023.  Reference: transformers modeling_gemma2.py, Gemma2Attention.
    """
    B, T, _ = x.shape
    N, K, H = cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
    S = T if past is None else past.length + T
    if mask.shape != (B, T, S):
        raise InputError(f"{w.path}: mask is {mask.shape}, x is {x.shape}, past is {S - T}; want mask {(B, T, S)}")

    q = w.keep("q", ops.linear(x, w["q.weight"]).reshape(B, T, N, H))
    k = w.keep("k", ops.linear(x, w["k.weight"]).reshape(B, T, K, H))
    v = w.keep("v", ops.linear(x, w["v.weight"]).reshape(B, T, K, H))

    q_rot = w.keep("q_rot", rotary.rotate(q, cos, sin, w.inner))
    k_rot = w.keep("k_rot", rotary.rotate(k, cos, sin, w.inner))
    present = cache.append(past, k_rot, v)

    mixed = attend(q_rot, present.keys, present.values, mask, w, cfg)
    out = w.keep("out", ops.linear(mixed, w["out.weight"]))
    return out, present


def vision_attention(x, w, cfg):
    """Full attention of every patch to every patch, with biases and without positions.

    Parameters
    ----------
    x : (I, P, C)
    w : Weights
        ``q``, ``k``, ``v``, ``out``: weight ``(C, C)`` and bias ``(C)`` each.
    cfg : VisionConfig

    Returns
    -------
    out : (I, P, C)

    Notes
    -----
    Dosovitskiy et al. 2021, app. A.  Reference: transformers modeling_siglip.py, SiglipAttention.
    """
    I, P, C = x.shape
    N, H = cfg.num_heads, cfg.head_dim

    q = w.keep("q", ops.linear(x, w["q.weight"], w["q.bias"]).reshape(I, P, N, H))
    k = w.keep("k", ops.linear(x, w["k.weight"], w["k.bias"]).reshape(I, P, N, H))
    v = w.keep("v", ops.linear(x, w["v.weight"], w["v.bias"]).reshape(I, P, N, H))

    mixed = attend(q, k, v, None, w, cfg)
    return w.keep("out", ops.linear(mixed, w["out.weight"], w["out.bias"]))
