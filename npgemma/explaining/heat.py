"""Arrays as pictures: a colour a number, a PNG in a data URI.

Zero is grey where numbers have two signs, the palest colour where they have one.
"""

import base64
import io
from functools import cache

import numpy as np
from PIL import Image

# Rows and columns of a drawing; of larger arrays every so-manieth is drawn.
MOST = 256
# From little to much, and from negative over nothing to positive: even in lightness, so that all eyes tell them apart.
ONE_SIGN = ("#fcfdbf", "#fea873", "#f1605d", "#b6377a", "#721f81", "#2d1160", "#000004")
TWO_SIGNS = ("#053061", "#2b79b6", "#7cb7d8", "#dddddd", "#f0a07f", "#c8413e", "#67001f")


def heat(x: np.ndarray, name: str, low: float | None = None, high: float | None = None) -> str:
    """Draw an array of two axes as an ``img``.

    Parameters
    ----------
    x : (rows, columns)
    name : str
        For who cannot see it; plain text without markup.
    low, high : float, optional
        The ends of the scale; the array's own if left out.
    """
    few = np.asarray(thinned(x), dtype=np.float64)
    least = float(few.min()) if low is None else low
    most = float(few.max()) if high is None else high
    if least < 0:
        most = max(abs(least), abs(most))
        least = -most
    part = (few - least) / max(most - least, 1e-30)
    image = Image.fromarray(np.clip(np.rint(part * 255), 0, 255).astype(np.uint8))
    image.putpalette(palette(TWO_SIGNS if least < 0 else ONE_SIGN))
    rows, columns = few.shape
    shape = " wide" if columns > 2 * rows else " tall" if rows > 1.5 * columns else ""
    return f'<img class="heat{shape}" alt="{name}, as colours" src="{data_uri(image)}">'


def thinned(x: np.ndarray) -> np.ndarray:
    """Take every so-manieth row and column of what is larger than a drawing."""
    steps = [-(-size // MOST) for size in x.shape]
    return x[:: steps[0], :: steps[1]]


def scale(stops: tuple[str, ...]) -> str:
    """The colours of a drawing, from its least number to its largest, for CSS."""
    return f"linear-gradient(to right, {', '.join(stops)})"


@cache
def palette(stops: tuple[str, ...]) -> list[int]:
    """256 colours between some."""
    anchors = np.array([[int(stop[place : place + 2], 16) for place in (1, 3, 5)] for stop in stops])
    places = np.linspace(0, len(stops) - 1, 256)
    return [round(float(np.interp(place, range(len(stops)), channel))) for place in places for channel in anchors.T]


def photograph(image: Image.Image, name: str) -> str:
    """Show a picture as an ``img``."""
    return f'<img class="photograph" alt="{name}" src="{data_uri(image)}">'


def data_uri(image: Image.Image) -> str:
    """Give a picture as the address of itself."""
    data = io.BytesIO()
    image.save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
