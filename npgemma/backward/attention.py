"""Attention backwards.  Mirror of ``npgemma/attention.py``, with its letters."""

from npgemma import ops as forward
from npgemma.backward import ops, rotary
from npgemma.backward.weighted import affine, linear


def attend(d_mixed, q, k, v, t, scale, softcap):
    """Find what queries, keys and values had to do with what was gathered.

    Parameters
    ----------
    d_mixed : (B, T, N*H)
    q : (B, T, N, H)
    k : (B, S, K, H)
    v : (B, S, K, H)
    t : Tape
        Reads ``probs``, and ``capped`` where there is a cap.
    scale : float
    softcap : float or None

    Returns
    -------
    d_q : (B, T, N, H)
    d_k : (B, S, K, H)
    d_v : (B, S, K, H)
        Keys that nobody may look at get exactly 0.
    """
    (B, T, N, H), K = q.shape, k.shape[2]
    queries, keys, values = (forward.group_heads(heads, K) for heads in (q, k, v))

    d_gathered = ops.merge_heads(t.keep("mixed", d_mixed), (B, K, N // K, T, H))
    d_probs, d_values = ops.product(d_gathered, t["probs"], values)
    d_scores = ops.softmax(t.keep("probs", d_probs), t["probs"])
    if softcap is not None:
        d_scores = ops.soft_cap(t.keep("capped", d_scores), t["capped"], softcap)
    d_product = t.keep("scores", d_scores) * scale
    d_queries, d_keys = ops.product(d_product, queries, keys.mT)
    return ops.group_heads(d_queries), ops.group_heads(d_keys.mT), ops.group_heads(d_values)


def attention(d_out, x, t, cfg, cos, sin):
    """Send the gradient of grouped-query attention back to its input.

    Parameters
    ----------
    d_out : (B, T, D)
    x : (B, T, D)
    t : Tape
    cfg : TextConfig
    cos : (B, T, H/2)
    sin : (B, T, H/2)

    Returns
    -------
    d_x : (B, T, D)
        The sum of what came back through queries, keys and values.
    """
    d_mixed = linear(t.keep("out", d_out), t["mixed"], t, "out")
    d_q_rot, d_k_rot, d_v = attend(d_mixed, t["q_rot"], t["k_rot"], t["v"], t, cfg.query_scale, cfg.attn_softcap)

    d_k = rotary.rotate(t.keep("k_rot", d_k_rot), cos, sin)
    d_q = rotary.rotate(t.keep("q_rot", d_q_rot), cos, sin)

    d_v = ops.split_heads(t.keep("v", d_v))
    d_k = ops.split_heads(t.keep("k", d_k))
    d_q = ops.split_heads(t.keep("q", d_q))
    return linear(d_v, x, t, "v") + linear(d_k, x, t, "k") + linear(d_q, x, t, "q")


def vision_attention(d_out, x, t, cfg):
    """Send the gradient of full attention, with biases, back to its input.

    Parameters
    ----------
    d_out : (I, P, C)
    x : (I, P, C)
    t : Tape
    cfg : VisionConfig

    Returns
    -------
    d_x : (I, P, C)
    """
    d_mixed = affine(t.keep("out", d_out), t["mixed"], t, "out")
    d_q, d_k, d_v = attend(d_mixed, t["q"], t["k"], t["v"], t, cfg.query_scale, softcap=None)

    d_v = ops.split_heads(t.keep("v", d_v))
    d_k = ops.split_heads(t.keep("k", d_k))
    d_q = ops.split_heads(t.keep("q", d_q))
    return affine(d_v, x, t, "v") + affine(d_k, x, t, "k") + affine(d_q, x, t, "q")
