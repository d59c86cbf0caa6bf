"""The decoder: Gemma (PaliGemma 1) and Gemma 2 (PaliGemma 2), told apart by what their configuration holds.

Letters: B batch, T positions of this call, S all positions, D width, V vocabulary rows.
"""

import numpy as np

from npgemma import ops, rotary
from npgemma.attention import attention
from npgemma.base import blocks


def embed(ids, w, cfg):
    """Look up the ids, scaled by the root of the width: ids (B, T) -> (B, T, D).

    Reference: transformers modeling_gemma.py, GemmaTextScaledWordEmbedding.
    """
    # As the precision stores it: sqrt(2048) is 45.25 in bfloat16.
    scale = w.precision.number(cfg.embed_scale)
    return w.keep("embedded", ops.embed(ids, w["embedded.weight"]) * scale)


def decode(x, w, cfg, positions, full_mask, sliding_mask, past):
    """Run all blocks and the final norm.

    Parameters
    ----------
    x : (B, T, D)
        Embedded ids with the pictures' soft tokens in place.
    w : Weights
    cfg : TextConfig
    positions : (B, T)
    full_mask : (B, T, S)
    sliding_mask : (B, T, S) or None
        For the blocks that ``cfg.layer_windows`` gives a window.
    past : tuple of Past, or None
        One a block; None at the first call.

    Returns
    -------
    norm : (B, T, D)
    present : tuple of Past

    Notes
    -----
    Reference: transformers modeling_gemma2.py, Gemma2Model.
    """
    radians = rotary.angles(positions, cfg.head_dim, cfg.rope_theta, w.precision.dtype)
    # Eager bfloat16 materialises the tables in bfloat16; recipes that rotate in float32 do not.
    cos = w.show("cos", w.inner(np.cos(radians)))
    sin = w.show("sin", w.inner(np.sin(radians)))

    present = []
    for index, window in enumerate(cfg.layer_windows):
        mask = full_mask if window is None else sliding_mask
        x, block_present = block(x, w.at(f"blocks.{index}"), cfg, mask, cos, sin, past[index] if past else None)
        present.append(block_present)
    return w.keep("norm", ops.rms_norm(x, w["norm.weight"], cfg.norm_eps)), tuple(present)


def block(x, w, cfg, mask, cos, sin, past=None):
    """Look around, then think: two residual branches, each normalised before, in Gemma 2 also after.

    Parameters
    ----------
    x : (B, T, D)
    w : Weights
    cfg : TextConfig
    mask : (B, T, S)
    cos, sin : (B, T, H/2)
    past : Past, optional

    Returns
    -------
    out : (B, T, D)
    present : Past

    Notes
    -----
    Gemma Team 2024 (Gemma), sec. 2; Gemma Team 2024 (Gemma 2), sec. 2.
    Reference: transformers modeling_gemma2.py, Gemma2DecoderLayer.
    """
    attn_norm = w.keep("attn_norm", ops.rms_norm(x, w["attn_norm.weight"], cfg.norm_eps))
    attn_out, present = attention(attn_norm, w.at("attn"), cfg, mask, cos, sin, past)
    attn_branch = post_norm("attn_post_norm", attn_out, w, cfg)
    middle = w.keep("middle", x + attn_branch)

    mlp_norm = w.keep("mlp_norm", ops.rms_norm(middle, w["mlp_norm.weight"], cfg.norm_eps))
    mlp_out = mlp(mlp_norm, w.at("mlp"))
    mlp_branch = post_norm("mlp_post_norm", mlp_out, w, cfg)
    out = w.keep("out", middle + mlp_branch)
    return out, present


def post_norm(name, x, w, cfg):
    """Normalise a branch's result, where the configuration has such a norm: x (B, T, D) -> (B, T, D)."""
    if not cfg.post_norms:
        return x
    return w.keep(name, ops.rms_norm(x, w[f"{name}.weight"], cfg.norm_eps))


def mlp(x, w):
    """Widen twice, let one half open the other, narrow: x (B, T, D) -> (B, T, D).

    out = W_out (gelu(W_gate x) * W_up x).  Shazeer 2020, eq. 6 (GEGLU).
    Reference: transformers modeling_gemma.py, GemmaMLP.
    """
    gate = w.keep("gate", ops.linear(x, w["gate.weight"]))
    opened = w.keep("opened", blocks.in_cache(ops.gelu, gate, whole_rows=False))
    up = w.keep("up", ops.linear(x, w["up.weight"]))
    hidden = w.keep("hidden", opened * up)
    return w.keep("out", ops.linear(hidden, w["out.weight"]))


def logits(x, w, cfg):
    """Score each token as the next one, by the tied head, the embedding table itself: x (B, T, D) -> (B, T, V).

    ``x`` is :func:`decode`'s, of the positions whose scores are wanted.  Press & Wolf 2017.
    Reference: transformers modeling_paligemma.py, PaliGemmaForConditionalGeneration.
    """
    product = ops.linear(x, w["embedded.weight"])
    if cfg.final_softcap is None:
        return w.keep("logits", product)
    return w.keep("logits", ops.soft_cap(w.inner(product), cfg.final_softcap, w.inner))
