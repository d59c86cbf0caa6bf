"""One attention for both towers: multi-head is G = 1, multi-query is K = 1.

Letters: B batch, T queries, S keys, N query heads, K key/value heads, G = N / K query heads a key/value head, H head
size.  Dropout and attention biases in the decoder are not supported.
"""

from npgemma import masks, ops, rotary
from npgemma.base import blocks, cache
from npgemma.base.errors import InputError

# Queries are taken so many at a time as make at most this many scores (64 MB in float32): at 896 pixels one layer's
# whole scores are 1.07 GB.
SCORES_AT_ONCE = 1 << 24


def attend(q, k, v, mask, w, scale, softcap):
    """Let each query gather the values of the keys it resembles.

    Parameters
    ----------
    q : (B, T, N, H)
    k, v : (B, S, K, H)
    mask : (B, T, S) or None
        True where query t may look at key s; None where all may look at all.
    w : Weights
        Names, rounds and shows the tensors; no weight is read.
    scale : float
        Of the scores, ``H**-0.5`` in most towers.
    softcap : float or None
        Bound of the scores.

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
    at_once = max(1, SCORES_AT_ONCE // (B * N * S))
    pieces = blocks.heads_and_rows(q, k, v, mask, at_once)
    if w.observe is None and sum(map(len, pieces)) > 1:  # Nobody wants to see the scores whole.
        return blocks.attended(pieces, lambda *piece: attend(*piece, w, scale, softcap))

    queries, keys, values = (ops.group_heads(heads, K) for heads in (q, k, v))
    product = w.inner(blocks.product(queries, keys.swapaxes(-1, -2), "bkgth", "t", at_once))
    scores = w.keep("scores", product * scale)
    capped = scores if softcap is None else w.keep("capped", ops.soft_cap(scores, softcap, w.inner))
    masked = capped if mask is None else masks.hide(capped, mask)
    probs = w.keep("probs", blocks.in_cache(ops.softmax, masked))
    gathered = blocks.product(probs, values, "bkgts", "t", at_once)
    return w.keep("mixed", ops.merge_heads(gathered))


def attention(x, w, cfg, mask, cos, sin, past=None):
    """Grouped-query attention with rotary positions, of the decoder.

    Parameters
    ----------
    x : (B, T, D)
    w : Weights
    cfg : TextConfig
    mask : (B, T, S)
    cos, sin : (B, T, H/2)
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
    N, K = cfg.num_heads, cfg.num_kv_heads
    S = T if past is None else past.length + T
    if mask.shape != (B, T, S):
        raise InputError(f"{w.path}: mask is {mask.shape}, x is {x.shape}, past is {S - T}; want mask {(B, T, S)}")

    q = w.keep("q", ops.split_heads(ops.linear(x, w["q.weight"]), N))
    k = w.keep("k", ops.split_heads(ops.linear(x, w["k.weight"]), K))
    v = w.keep("v", ops.split_heads(ops.linear(x, w["v.weight"]), K))

    q_rot = w.keep("q_rot", rotary.rotate(q, cos, sin, w.inner))
    k_rot = w.keep("k_rot", rotary.rotate(k, cos, sin, w.inner))
    present = cache.append(past, k_rot, v)

    mixed = attend(q_rot, present.keys, present.values, mask, w, cfg.query_scale, cfg.attn_softcap)
    out = w.keep("out", ops.linear(mixed, w["out.weight"]))
    return out, present


def vision_attention(x, w, cfg):
    """Full attention of every patch to every patch, with biases and without positions: x (I, P, C) -> (I, P, C).

    Dosovitskiy et al. 2021, app. A.  Reference: transformers modeling_siglip.py, SiglipAttention.
    """
    N = cfg.num_heads

    q = w.keep("q", ops.split_heads(ops.linear(x, w["q.weight"], w["q.bias"]), N))
    k = w.keep("k", ops.split_heads(ops.linear(x, w["k.weight"], w["k.bias"]), N))
    v = w.keep("v", ops.split_heads(ops.linear(x, w["v.weight"], w["v.bias"]), N))

    mixed = attend(q, k, v, None, w, cfg.query_scale, softcap=None)
    return w.keep("out", ops.linear(mixed, w["out.weight"], w["out.bias"]))
