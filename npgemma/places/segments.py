"""From codes to a mask in the picture's pixels, as its published readers do it, and from a mask to codes.

Letters: H rows and W columns of a picture.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from npgemma.base.errors import InputError
from npgemma.base.weights import Weights
from npgemma.places.codec import SIDE, decode, encode
from npgemma.words.locations import Box

# How a box is read, by who reads it: what a location is divided by.
WAYS = {"big_vision": 1023, "demo": 1024}


def paint_mask(codec: Weights, box: Box, size: tuple[int, int], way: str = "big_vision") -> np.ndarray | None:
    """Paint the mask of a box into a picture.

    Parameters
    ----------
    codec : Weights
    box : Box
        With sixteen codes, its corners in pixels of the picture.
    size : (2)
        Width and height of the picture.
    way : {"big_vision", "demo"}
        ``big_vision``: its evaluator, which cuts edges down to whole pixels, resizes the decoder's numbers bilinearly
        and takes what is above 0.  ``demo``: its demonstration, which rounds edges, clips to [0, 1], makes bytes of it
        and resizes them bicubically; it shows them softly, and here a pixel is inside from more than one half on.

    Returns
    -------
    mask : (H, W) of bool, or None where the box holds no pixel
    """
    check_way(way)
    left, top, right, bottom = whole_edges(box.corners, way)
    if right <= left or bottom <= top:
        return None
    [small] = decode(np.array([box.segments]), codec)
    mask = np.zeros((size[1], size[0]), bool)
    if way == "demo":
        bytes_of = (np.clip(small * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
        resized = np.asarray(Image.fromarray(bytes_of).resize((right - left, bottom - top), Image.Resampling.BICUBIC))
        mask[top:bottom, left:right] = resized > 127
    else:
        image = Image.fromarray(small.astype(np.float32))
        resized = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
        mask[top:bottom, left:right] = resized > 0
    return mask


def whole_edges(corners: Sequence[float], way: str) -> tuple[int, ...]:
    """Give the edges of a box between pixels."""
    return tuple(int(edge) if way == "big_vision" else round(edge) for edge in corners)


def check_way(way: str) -> None:
    """Refuse a way of reading masks that nobody has."""
    if way not in WAYS:
        raise InputError(f"came as {way!r}; want one of {', '.join(WAYS)}", argument="way")


def encode_mask(codec: Weights, mask: Any, corners: Sequence[float], label: str = "") -> Box:
    """Give a box with the codes of the mask inside it, to train a model with.

    Parameters
    ----------
    codec : Weights
        As :func:`npgemma.load_codec` gives it.
    mask : (H, W)
        Booleans, or numbers of which those above 0 are inside; in the picture's own pixels.
    corners : (4)
        Left, top, right and bottom edge in pixels.
    label : str

    Returns
    -------
    box : Box
        ``npgemma.words.locations.write_boxes([box], (W, H))`` is the answer to learn.

    Raises
    ------
    InputError
        If the mask is no picture of numbers, or the box holds none of its pixels.

    Notes
    -----
    The crop has its edges at round(corner), half to even; it is resized to 64 x 64 bilinearly and with antialias, and
    stays soft.  Reference: big_vision pp/proj/paligemma/segmentation.py, refcoco_mask2str.
    """
    inside = np.asarray(mask)
    if inside.ndim != 2 or inside.dtype.kind not in "biuf":
        raise InputError(f"came as {inside.shape} of {inside.dtype}; want (height, width) of bool", argument="mask")
    left, top, right, bottom = (float(edge) for edge in corners)
    height, width = inside.shape
    if not (0 <= left <= right <= width and 0 <= top <= bottom <= height):
        raise InputError(
            f"came as {tuple(corners)}; want left, top, right, bottom inside a picture of {width} x {height}",
            argument="corners",
        )
    crop = inside[round(top) : round(bottom), round(left) : round(right)] > 0
    if not crop.size:
        raise InputError(f"came as {tuple(corners)}, which holds no whole pixel", argument="corners")
    # As floats: resizing bytes rounds, and moves a place by up to 4e-3.
    image = Image.fromarray(crop.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    [codes] = encode(2.0 * (np.asarray(image)[None].astype(codec.precision.dtype) - 0.5), codec)
    return Box(label, (left, top, right, bottom), tuple(int(code) for code in codes))
