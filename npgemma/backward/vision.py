"""The SigLIP tower backwards.  Mirror of ``npgemma/vision.py``, with its letters."""

from npgemma import ops as forward
from npgemma.backward import ops
from npgemma.backward.attention import vision_attention
from npgemma.backward.weighted import affine, layer_norm


def encode(d_norm, pixels, t, cfg):
    """Send the gradient of each patch's vector back to the pictures.

    Parameters
    ----------
    d_norm : (I, P, C)
    pixels : (I, R, R, 3)
    t : Tape
        At ``vision``.
    cfg : VisionConfig

    Returns
    -------
    d_pixels : (I, R, R, 3)
    """
    x = t[f"blocks.{cfg.depth - 1}.out"] if cfg.depth else t["embedded"]
    d_x = layer_norm(t.keep("norm", d_norm), x, t, "norm", cfg.norm_eps)
    for index in reversed(range(cfg.depth)):
        x = t[f"blocks.{index - 1}.out"] if index else t["embedded"]
        d_x = block(d_x, x, t.at(f"blocks.{index}"), cfg)

    d_embedded = t.keep("embedded", d_x)
    t.add("positions.weight", d_embedded.sum(axis=0))
    d_flat = affine(t.keep("patches", d_embedded), forward.patchify(pixels, cfg.patch_size), t, "patches")
    return ops.patchify(d_flat, pixels, cfg.patch_size)


def block(d_out, x, t, cfg):
    """Send the gradient of a block back along both branches; each residual sum gives it to both its terms.

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
    d_out = t.keep("out", d_out)
    d_mlp_norm = t.keep("mlp_norm", mlp(d_out, t["mlp_norm"], t.at("mlp")))
    d_middle = t.keep("middle", d_out + layer_norm(d_mlp_norm, t["middle"], t, "mlp_norm", cfg.norm_eps))

    d_attn_norm = t.keep("attn_norm", vision_attention(d_middle, t["attn_norm"], t.at("attn"), cfg))
    return d_middle + layer_norm(d_attn_norm, x, t, "attn_norm", cfg.norm_eps)


def mlp(d_out, x, t):
    """Send the gradient back through the narrow matrix, the bend, the wide one.

    Parameters
    ----------
    d_out : (I, P, C)
    x : (I, P, C)
    t : Tape

    Returns
    -------
    d_x : (I, P, C)
    """
    d_hidden = t.keep("hidden", affine(t.keep("out", d_out), t["hidden"], t, "out"))
    d_up = t.keep("up", ops.gelu(d_hidden, t["up"]))
    return affine(d_up, x, t, "up")
