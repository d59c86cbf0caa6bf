"""Masks and attention as blocks of characters: who may look at whom, and where a row looks."""

import math
from collections.abc import Sequence

import numpy as np

SHADES = " ░▒▓█"
# A terminal's width and a screen's height; what is larger is drawn coarser.
WIDTH, HEIGHT = 64, 24


def draw_mask(mask: np.ndarray) -> str:
    """Draw who may look at whom: a line a query, a column a key; full where True.

    Parameters
    ----------
    mask : (T, S)
        Larger ones are drawn coarser: a character then stands for several keys of several queries, shaded by how many
        of them are True.

    Returns
    -------
    picture : str
        Queries and keys are numbered from 0.
    """
    T, S = mask.shape
    rows, columns = runs(T, HEIGHT), runs(S, WIDTH)
    lines = [
        f"{label(low, high):>9} |{''.join(shade(float(mask[low:high, a:b].mean())) for a, b in columns)}|"
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
        Shaded relative to the largest value.
    """
    largest = max(float(np.max(probs)), 1e-30)
    lines = []
    for low, high in image_runs(is_image):
        lines.append(f"keys {low}-{high - 1}, image patches: {float(np.sum(probs[low:high])):.3f} of the attention")
        lines += grid(np.asarray(probs[low:high]) / largest)
    for place, (value, name) in enumerate(zip(probs, labels, strict=True)):
        if not is_image[place]:
            bar = "█" * round(30 * float(value) / largest)
            lines.append(f"{place:>5} {name:16.16} {float(value):.3f} {bar}".rstrip())
    return "\n".join(lines)


def image_runs(is_image: Sequence[bool]) -> list[tuple[int, int]]:
    """First and behind-the-last position of each run of image tokens."""
    padded = np.concatenate([[False], np.asarray(is_image, dtype=bool), [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(low), int(high)) for low, high in edges.reshape(-1, 2)]


def grid(values: np.ndarray) -> list[str]:
    """Draw patches row by row; two characters a patch, so that it looks square."""
    side = math.isqrt(len(values))
    width = side if side * side == len(values) else WIDTH // 2
    step = -(-width // (WIDTH // 2))
    rows = [values[low : low + width] for low in range(0, len(values), width)]
    if step == 1:
        return ["  |" + "".join(shade(float(value)) * 2 for value in row) + "|" for row in rows]
    square = values.reshape(side, side)
    return [
        "  |" + "".join(shade(float(square[y : y + step, x : x + step].max())) * 2 for x in range(0, side, step)) + "|"
        for y in range(0, side, step)
    ]
