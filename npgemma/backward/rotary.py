"""The rotation backwards.  Mirror of ``npgemma/rotary.py``; positions are integers and have no gradient."""

from npgemma import rotary
from npgemma.base.precision import unrounded


def rotate(d_y, cos, sin):
    """Turn each pair of channels back by its angle.

    Parameters
    ----------
    d_y : (B, T, N, H)
    cos : (B, T, H/2)
    sin : (B, T, H/2)

    Returns
    -------
    d_x : (B, T, N, H)

    Notes
    -----
    A rotation's transpose is the rotation by the opposite angle.
    """
    return rotary.rotate(d_y, cos, -sin, unrounded)
