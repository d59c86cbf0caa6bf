"""The decoder backwards.  Mirror of ``npgemma/text.py``, with its letters."""

import math

from npgemma.backward import ops
from npgemma.backward.attention import attention
from npgemma.backward.weighted import linear, rms_norm


def embed(d_embedded, ids, t, cfg):
    """Give each row of the table what the tokens that read it received.

    Parameters
    ----------
    d_embedded : (B, T, D)
    ids : (B, T)
    t : Tape
        At ``text``.
    cfg : TextConfig
    """
    d_rows = t.keep("embedded", d_embedded) * math.sqrt(cfg.width)
    t.add("embedded.weight", ops.embed(d_rows, ids, t["embedded.weight"]))


def decode(d_norm, x, t, cfg):
    """Send the gradient back through the final norm and all blocks.

    Parameters
    ----------
    d_norm : (B, T, D)
    x : (B, T, D)
    t : Tape
        At ``text``.
    cfg : TextConfig

    Returns
    -------
    d_x : (B, T, D)
    """
    last = t[f"blocks.{cfg.depth - 1}.out"] if cfg.depth else x
    d_x = rms_norm(t.keep("norm", d_norm), last, t, "norm", cfg.norm_eps)
    for index in reversed(range(cfg.depth)):
        before = t[f"blocks.{index - 1}.out"] if index else x
        d_x = block(d_x, before, t.at(f"blocks.{index}"), cfg, t["cos"], t["sin"])
    return d_x


def block(d_out, x, t, cfg, cos, sin):
    """Send the gradient of a block back along both branches; each residual sum gives it to both its terms.

    Parameters
    ----------
    d_out : (B, T, D)
    x : (B, T, D)
    t : Tape
    cfg : TextConfig
    cos, sin : (B, T, H/2)

    Returns
    -------
    d_x : (B, T, D)
    """
    d_out = t.keep("out", d_out)
    d_mlp_out = post_norm(d_out, "mlp_post_norm", t["mlp.out"], t, cfg)
    d_mlp_norm = t.keep("mlp_norm", mlp(d_mlp_out, t["mlp_norm"], t.at("mlp")))
    d_middle = t.keep("middle", d_out + rms_norm(d_mlp_norm, t["middle"], t, "mlp_norm", cfg.norm_eps))

    d_attn_out = post_norm(d_middle, "attn_post_norm", t["attn.out"], t, cfg)
    d_attn_norm = t.keep("attn_norm", attention(d_attn_out, t["attn_norm"], t.at("attn"), cfg, cos, sin))
    return d_middle + rms_norm(d_attn_norm, x, t, "attn_norm", cfg.norm_eps)


def post_norm(d_y, name, x, t, cfg):
    """Send the gradient back through a branch's last norm, where the configuration has one.

    Parameters
    ----------
    d_y : (B, T, D)
    name : str
    x : (B, T, D)
    t : Tape
    cfg : TextConfig

    Returns
    -------
    d_x : (B, T, D)
    """
    if not cfg.post_norms:
        return d_y
    return rms_norm(t.keep(name, d_y), x, t, name, cfg.norm_eps)


def mlp(d_out, x, t):
    """Send the gradient back through the narrow matrix, the product of the halves, the bend, both wide ones.

    Parameters
    ----------
    d_out : (B, T, D)
    x : (B, T, D)
    t : Tape

    Returns
    -------
    d_x : (B, T, D)
    """
    d_hidden = t.keep("hidden", linear(t.keep("out", d_out), t["hidden"], t, "out"))
    d_up = t.keep("up", d_hidden * t["opened"])
    d_opened = t.keep("opened", d_hidden * t["up"])
    d_gate = t.keep("gate", ops.gelu(d_opened, t["gate"]))
    return linear(d_up, x, t, "up") + linear(d_gate, x, t, "gate")


def logits(d_logits, x, t, cfg):
    """Send the gradient of the scores back through the cap and the tied table, which has a second use here.

    Parameters
    ----------
    d_logits : (B, T, V)
    x : (B, T, D)
        The rows that the run's ``logits`` were computed for, no others.
    t : Tape
        At ``text``.
    cfg : TextConfig

    Returns
    -------
    d_x : (B, T, D)
    """
    d_product = t.keep("logits", d_logits)
    if cfg.final_softcap is not None:
        d_product = ops.soft_cap(d_product, t["logits"], cfg.final_softcap)
    return linear(d_product, x, t, "embedded")
