"""A picture's own gradient, drawn: where a change of a pixel would change the surprise most."""

import io

import numpy as np
from PIL import Image

# How much of the picture shows through where nothing matters, so that one sees what is where.
GROUND = 0.25


def draw_sensitivity(pixels, d_pixels) -> bytes:
    """Draw a picture, bright where the loss looks closely.

    Parameters
    ----------
    pixels : (R, R, 3)
        In [-1, 1].
    d_pixels : (R, R, 3)
        Gradient of the loss.

    Returns
    -------
    png : bytes

    Notes
    -----
    Brightness is the gradient's size over the colours, 1 at its 99th percentile.  Simonyan et al. 2014, sec. 3.1.
    """
    size = np.sqrt(np.sum(np.square(d_pixels.astype(np.float64)), axis=-1, keepdims=True))
    bright = np.minimum(size / max(float(np.percentile(size, 99)), 1e-300), 1.0)
    shown = (pixels + 1.0) / 2.0 * GROUND + bright * (1.0 - GROUND)
    file = io.BytesIO()
    Image.fromarray(np.round(shown * 255.0).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
