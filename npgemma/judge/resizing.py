"""Other ways to make a picture square: what ports do where PaliGemma resizes with Pillow's bicubic filter, in bytes.

Letters: M pictures, R the side of the square.  A picture comes as uint8 (height, width, 3); a way gives (R, R, 3).
"""

import math

import numpy as np
from PIL import Image

# A result may have been kept as floats, or rounded to bytes once, or by the fixed point of a library: so many levels.
ROUNDED = 0.75


def with_pillow(resample):
    """Pillow with another filter; like all of Pillow's it widens where a picture shrinks, and keeps bytes between."""
    return lambda picture, R: np.asarray(Image.fromarray(picture).resize((R, R), resample), dtype=np.float64)


def reduced(picture, R):
    """Pillow's bicubic in two steps: the picture is first made smaller by a whole factor."""
    return np.asarray(Image.fromarray(picture).resize((R, R), Image.Resampling.BICUBIC, reducing_gap=1.0), np.float64)


def with_kernel(kernel, reach, antialias=False):
    """Resize by a kernel that reaches so far on both sides, in floats; without antialias it never widens."""

    def way(picture, R):
        height, width = picture.shape[:2]
        rows, columns = (weights(size, R, kernel, reach, antialias) for size in (height, width))
        return np.einsum("rh,hwc,sw->rsc", rows, picture.astype(np.float64), columns, optimize=True)

    return way


def weights(size, R, kernel, reach, antialias):
    """How much of each of ``size`` numbers goes into each of R: (R, size), rows sum to 1; edges are repeated."""
    scale = size / R
    wider = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(R) + 0.5) * scale - 0.5
    first = np.floor(centres - reach * wider).astype(int)
    taps = first[:, None] + np.arange(2 * math.ceil(reach * wider) + 2)
    if antialias:  # what lies outside takes no part
        shares = np.where((taps >= 0) & (taps < size), kernel((taps - centres[:, None]) / wider), 0.0)
    else:
        shares = kernel(taps - centres[:, None])
    found = np.zeros((R, size))
    np.add.at(found, (np.arange(R)[:, None], np.clip(taps, 0, size - 1)), shares)
    return found / np.sum(found, axis=1, keepdims=True)


def triangle(x):
    """Bilinear."""
    return np.maximum(0.0, 1.0 - np.abs(x))


def cubic(a):
    """Keys' cubic: a = -0.5 in Pillow and TensorFlow, -0.75 in OpenCV and PyTorch."""

    def kernel(x):
        x = np.abs(x)
        near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
        far = ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
        return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))

    return kernel


def lanczos(lobes):
    """Lanczos' window of so many lobes."""
    return lambda x: np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)


def by_area(picture, R):
    """Each result is the mean of what it covers, parts of pixels by their share (OpenCV's INTER_AREA, shrinking)."""
    rows, columns = (covered(size, R) for size in picture.shape[:2])
    return np.einsum("rh,hwc,sw->rsc", rows, picture.astype(np.float64), columns, optimize=True)


def covered(size, R):
    """The share of each of ``size`` numbers in each of R: (R, size)."""
    edges = np.arange(R + 1) * size / R
    low, high = np.maximum(edges[:-1, None], np.arange(size)), np.minimum(edges[1:, None], np.arange(1, size + 1))
    return np.maximum(0.0, high - low) / (size / R)


def nearest_before(picture, R):
    """The nearest pixel by cutting off, as OpenCV and PyTorch have it; Pillow takes the one under the middle."""
    rows, columns = (np.arange(R) * size // R for size in picture.shape[:2])
    return picture[rows][:, columns].astype(np.float64)


def with_corners(picture, R):
    """Bilinear where the corners of both pictures lie on each other (align_corners)."""
    rows, columns = (np.linspace(0.0, size - 1.0, R)[:, None] - np.arange(size) for size in picture.shape[:2])
    return np.einsum("rh,hwc,sw->rsc", triangle(rows), picture.astype(np.float64), triangle(columns), optimize=True)


def cropped(way):
    """The largest square in the middle, resized: the rest is lost."""

    def square(picture, R):
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return way(np.ascontiguousarray(picture[top : top + side, left : left + side]), R)

    return square


def resized_and_cropped(way):
    """The shorter side becomes R, the aspect ratio is kept, and the middle is cut out."""

    def square(picture, R):
        height, width = picture.shape[:2]
        sides = [max(R, round(side * R / min(height, width))) for side in (height, width)]
        top, left = ((side - R) // 2 for side in sides)
        whole = np.asarray(Image.fromarray(picture).resize((sides[1], sides[0]), way), dtype=np.float64)
        return whole[top : top + R, left : left + R]

    return square


def padded(way, level):
    """The longer side becomes R, the aspect ratio is kept, and the rest is filled around the picture."""

    def square(picture, R):
        height, width = picture.shape[:2]
        sides = [max(1, round(side * R / max(height, width))) for side in (height, width)]
        top, left = ((R - side) // 2 for side in sides)
        found = np.full((R, R, 3), float(level))
        small = np.asarray(Image.fromarray(picture).resize((sides[1], sides[0]), way), dtype=np.float64)
        found[top : top + sides[0], left : left + sides[1]] = small
        return found

    return square
