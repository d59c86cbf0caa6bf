"""Masks as polygons along the edges of pixels, which rasterise back to exactly the same pixels.

Not supported: masks with holes, which COCO's list of polygons cannot say; run-lengths can.
"""

import numpy as np

# Steps along pixel edges, each a quarter turn to the right of the one before: right, down, left, up (x, y).
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outlines(mask: np.ndarray) -> list[list[int]] | None:
    """Give the polygons of a mask: one for each of its parts.

    Parameters
    ----------
    mask : (H, W)

    Returns
    -------
    polygons : list of list of int, or None for a mask with a hole
        x, y, x, y, … of corners between pixels, clockwise; the pixel of row r and column c lies between (c, r) and
        (c + 1, r + 1).  Parts that touch at a corner only are polygons of their own.
    """
    leaving = edges(np.asarray(mask, bool))
    polygons = []
    for start in sorted(leaving):
        while leaving[start]:
            polygon = follow(leaving, start)
            if area(polygon) < 0:  # walked with the pixels on the right, the rim of a hole turns the other way
                return None
            polygons.append([number for corner in polygon for number in corner])
    return polygons


def edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """List the steps that leave each corner along the rim of a mask, with its pixels on the right."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # A step right has its pixel below it and nothing above; down, its pixel on the left; and so on.
    beside = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = ((0, 0), (1, 0), (1, 1), (0, 1))
    leaving: dict[tuple[int, int], list[int]] = {}
    for direction, (other, (right, down)) in enumerate(zip(beside, corners, strict=True)):
        for row, column in np.argwhere(inside & ~other).tolist():
            leaving.setdefault((column + right, row + down), []).append(direction)
    return leaving


def follow(leaving: dict[tuple[int, int], list[int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Walk one rim from a corner back to it, taking its steps away; gives the corners at which it turns."""
    corners: list[tuple[int, int]] = []
    place, direction = start, leaving[start][0]
    before = None
    while direction in leaving.get(place, ()):
        leaving[place].remove(direction)
        if direction != before:
            corners.append(place)
        before = direction
        place = (place[0] + STEPS[direction][0], place[1] + STEPS[direction][1])
        # Where two pixels touch at a corner, the right turn stays with the same one: so parts are joined by edges only.
        turns = [(before + turn) % 4 for turn in (1, 0, 3)]
        direction = next((turn for turn in turns if turn in leaving.get(place, ())), before)
    return corners


def area(polygon: list[tuple[int, int]]) -> int:
    """Give twice the area of a polygon, negative where it turns left."""
    after = polygon[1:] + polygon[:1]
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(polygon, after, strict=True))
