"""The SigLIP tower: patches, positions, blocks (Zhai et al. 2023; Dosovitskiy et al. 2021).

Letters: I pictures, R image side, P patches, C width.  No class token, no pooling head, no interpolated positions.
"""

from npgemma import ops
from npgemma.attention import vision_attention
from npgemma.base import blocks


def encode(pixels, w, cfg):
    """Turn pictures in [-1, 1] into one vector a patch: pixels (I, R, R, 3) -> (I, P, C).

    Reference: transformers modeling_siglip.py, SiglipVisionTransformer.
    """
    flat = ops.patchify(pixels, cfg.patch_size)
    patches = w.keep("patches", ops.linear(flat, w["patches.weight"], w["patches.bias"]))
    embedded = w.keep("embedded", patches + w["positions.weight"])

    x = embedded
    for index in range(cfg.depth):
        x = block(x, w.at(f"blocks.{index}"), cfg)
    return w.keep("norm", ops.layer_norm(x, w["norm.weight"], w["norm.bias"], cfg.norm_eps))


def block(x, w, cfg):
    """Let patches exchange what they know, then let each think about it: x (I, P, C) -> (I, P, C).

    Dosovitskiy et al. 2021, eq. 2 and 3.  Reference: transformers modeling_siglip.py, SiglipEncoderLayer.
    """
    attn_norm = w.keep("attn_norm", ops.layer_norm(x, w["attn_norm.weight"], w["attn_norm.bias"], cfg.norm_eps))
    attn_out = vision_attention(attn_norm, w.at("attn"), cfg)
    middle = w.keep("middle", x + attn_out)

    mlp_norm = w.keep("mlp_norm", ops.layer_norm(middle, w["mlp_norm.weight"], w["mlp_norm.bias"], cfg.norm_eps))
    mlp_out = mlp(mlp_norm, w.at("mlp"))
    return w.keep("out", middle + mlp_out)


def mlp(x, w):
    """Widen, bend, narrow: x (I, P, C) -> (I, P, C).  Reference: transformers modeling_siglip.py, SiglipMLP."""
    up = w.keep("up", ops.linear(x, w["up.weight"], w["up.bias"]))
    hidden = w.keep("hidden", blocks.in_cache(ops.gelu, up, whole_rows=False))
    return w.keep("out", ops.linear(hidden, w["out.weight"], w["out.bias"]))
