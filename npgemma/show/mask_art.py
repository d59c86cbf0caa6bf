"""Masks and attention as blocks of characters: who may look at whom, and where a row looks."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from npgemma.base.device import to_host
from npgemma.base.errors import InputError

SHADES = " ░▒▓█"
# The part of a range that still shows, as the palest shade.
LEAST = 1e-9
# A terminal's width and a screen's height; what is larger is drawn coarser.
WIDTH, HEIGHT = 64, 24


def draw_mask(mask: Any) -> str:
    """Draw who may look at whom: a line a query, a column a key; full where True.

    Parameters
    ----------
    mask : (T, S) or (B, T, S)
        Larger ones are drawn coarser: a character then stands for several keys of several queries, shaded by how many
        of them are True.  Of a batch each row is drawn.

    Returns
    -------
    picture : str
        Queries and keys are numbered from 0.

    Raises
    ------
    InputError
        If it has other axes, or none to draw.
    """
    host = to_host(mask)
    if host.ndim not in (2, 3) or host.dtype.kind not in "biuf" or not host.size:
        raise InputError(f"came as {host.dtype} {host.shape}; want booleans (T, S) or (B, T, S)", argument="mask")
    if host.ndim == 3:
        titles = [f"row {row} of the batch\n" if len(host) > 1 else "" for row in range(len(host))]
        return "\n".join(title + draw_mask(one) for title, one in zip(titles, host, strict=True))
    T, S = host.shape
    rows, columns = runs(T, HEIGHT), runs(S, WIDTH)
    lines = [
        f"{label(low, high):>9} |{''.join(shade(float(host[low:high, a:b].mean())) for a, b in columns)}|"
        for low, high in rows
    ]
    ruler = f"{'keys':>9}  0 to {S - 1}" + ("" if len(columns) == S else f", {columns[0][1]} a character")
    return "\n".join([*lines, ruler])


def runs(length: int, most: int) -> list[tuple[int, int]]:
    """Cut 0..length into at most ``most`` runs of one size (the last may be shorter)."""
    size = -(-length // most)
    return [(low, min(low + size, length)) for low in range(0, length, size)]


def label(low: int, high: int) -> str:
    """``3``, or ``0-15``."""
    return str(low) if high == low + 1 else f"{low}-{high - 1}"


def shade(part: float) -> str:
    """A character as dark as ``part`` (0 to 1) is large; whatever is not nothing shows."""
    return SHADES[math.ceil(max(0.0, min(1.0, part)) * (len(SHADES) - 1))]


def draw_attention_row(probs: np.ndarray, is_image: Sequence[bool], labels: Sequence[str]) -> str:
    """Draw where one query looks: each picture's patches as a grid, then each token with a bar.

    Parameters
    ----------
    probs : (S)
        One row: positive, the sum 1.
    is_image : (S)
        True at image tokens; a run of them is one square picture, row by row, or several.
    labels : (S)
        What each key is called.

    Returns
    -------
    picture : str
        Each grid is shaded from its own smallest number to its own largest, which are written over it; bars are as
        long as compares with the token that is looked at most.
    """
    lines = []
    for low, high in image_runs(is_image):
        patches = np.asarray(probs[low:high], dtype=np.float64)
        lines.append(f"keys {low}-{high - 1}, image patches: {patches.sum():.3f} of the attention,")
        lines.append(f"each from {patches.min():.2g} {SHADES[1]} to {patches.max():.2g} {SHADES[-1]}")
        lines += grid(patches)
    tokens = [(place, float(value)) for place, value in enumerate(probs) if not is_image[place]]
    largest = max([value for _, value in tokens], default=0.0) or 1.0
    for place, value in tokens:
        lines.append(f"{place:>5} {labels[place]:16.16} {value:.3f} {'█' * round(30 * value / largest)}".rstrip())
    return "\n".join(lines)


def image_runs(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """First and behind-the-last position of each run of image tokens."""
    padded = np.concatenate([[False], np.asarray(is_image, dtype=bool), [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(low), int(high)) for low, high in edges.reshape(-1, 2)]


def grid(values: np.ndarray) -> list[str]:
    """Draw patches row by row, shaded within their own range; two characters a patch, so that it looks square."""
    side = math.isqrt(len(values))
    width = side if side * side == len(values) else WIDTH // 2
    step = -(-width // (WIDTH // 2))
    parts = within(values)
    rows = [parts[low : low + width] for low in range(0, len(parts), width)]
    if step == 1:
        return ["  |" + "".join(shade(float(part)) * 2 for part in row) + "|" for row in rows]
    square = parts.reshape(side, side)
    return [
        "  |" + "".join(shade(float(square[y : y + step, x : x + step].max())) * 2 for x in range(0, side, step)) + "|"
        for y in range(0, side, step)
    ]


def within(values: np.ndarray) -> np.ndarray:
    """How far each number is from the smallest to the largest, 0 to 1; only what is nothing at all gives 0."""
    low, high = values.min(), values.max()
    parts = (values - low) / (high - low) if high > low else np.ones_like(values)
    return np.where(values == 0, 0.0, np.maximum(parts, LEAST))


def beside(drawings: Sequence[str], width: int = 120) -> str:
    """Lay drawings side by side, as many a row as ``width`` characters hold."""
    blocks = [drawing.splitlines() for drawing in drawings]
    widest = max(len(line) for block in blocks for line in block)
    many = max(1, (width + 2) // (widest + 2))
    lines: list[str] = []
    for first in range(0, len(blocks), many):
        rows = zip_longest(*blocks[first : first + many], fillvalue="")
        lines += ["  ".join(cell.ljust(widest) for cell in row).rstrip() for row in rows]
    return "\n".join(lines)
