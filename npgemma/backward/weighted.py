"""Equations with weights, backwards: each sends the gradient on to its input and hands the weights' to the tape."""

from npgemma.backward import ops


def linear(d_y, x, t, name):
    """Go back through the matrix ``name``: d_y (..., F), x (..., D), gives d_x (..., D)."""
    d_x, d_weight = ops.linear(d_y, x, t[f"{name}.weight"])
    t.add(f"{name}.weight", d_weight)
    return d_x


def affine(d_y, x, t, name):
    """Go back through the matrix ``name`` and its bias: d_y (..., F), x (..., D), gives d_x (..., D)."""
    t.add(f"{name}.bias", ops.over_rows(d_y))
    return linear(d_y, x, t, name)


def layer_norm(d_y, x, t, name, eps):
    """Go back through the LayerNorm ``name``: d_y, x and d_x are (..., C)."""
    d_x, d_weight, d_bias = ops.layer_norm(d_y, x, t[f"{name}.weight"], t[f"{name}.bias"], eps)
    t.add(f"{name}.weight", d_weight)
    t.add(f"{name}.bias", d_bias)
    return d_x


def rms_norm(d_y, x, t, name, eps):
    """Go back through the RMSNorm ``name``: d_y, x and d_x are (..., D)."""
    d_x, d_weight = ops.rms_norm(d_y, x, t[f"{name}.weight"], eps)
    t.add(f"{name}.weight", d_weight)
    return d_x
