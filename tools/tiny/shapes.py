"""Shapes as people draw them: turned, stretched, with a hand's wobble, filled or outlined, cut by the picture's edge.

Contours are points (n, 2), x and y; masks are (H, W) booleans in the picture's pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from world import KINDS, OUTLINES

STEPS = 12  # points an edge of a contour, so that a wobble bends it
TURN = 15  # degrees, either way


@dataclass(frozen=True)
class Habits:
    """How shapes are drawn; each number is how far, or how often.

    Parameters
    ----------
    turn : float
        Degrees, either way.
    stretch : float
        Longest side over the other, at most.
    wobble : float
        Of a hand, as a part of the shape's size.
    outlined, cut : float
        How often a shape is a stroke only; how often the picture's edge cuts it.
    loose : float
        How far inner corners of stars and crosses, and tips of triangles, may lie from where they belong; up to 1.
    """

    turn: float = TURN
    stretch: float = 1.5
    wobble: float = 0.025
    outlined: float = 0.0
    cut: float = 0.0
    loose: float = 0.0


def contour(kind, rng, habits):
    """The corners of a shape around 0, its longer side about 1."""
    corners = OUTLINES[kind]
    if corners is None:
        angle = np.linspace(0, 2 * math.pi, 60, endpoint=False)
        points = 0.5 * np.stack([np.cos(angle), np.sin(angle)], 1)
    else:
        ends = loosened(kind, np.array(corners, float) - 0.5, rng, habits.loose)
        along = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
        after = np.roll(ends, -1, 0)
        points = np.concatenate([one + (two - one) * along for one, two in zip(ends, after, strict=True)])
    ratio = rng.uniform(1, habits.stretch)
    points = points * ((1, 1 / ratio) if rng.random() < 0.5 else (1 / ratio, 1))
    turn = math.radians(rng.uniform(-habits.turn, habits.turn))
    points = points @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return points + shake(len(points), rng, habits.wobble * rng.random())


def loosened(kind, ends, rng, loose):
    """The corners of a shape, some of them moved: thin and thick arms, sharp and blunt stars, leaning triangles."""
    if not loose:
        return ends
    factor = 1 + loose * rng.uniform(-1.1 if kind == "cross" else -0.5, 0.25)
    if kind == "cross":  # often two thin strokes
        return np.where(np.abs(ends) < 0.4, ends * factor, ends)
    if kind == "star":
        middle = ends[::2].mean(0)
        return np.where(np.arange(len(ends))[:, None] % 2, middle + (ends - middle) * factor, ends)
    if kind == "triangle":
        return ends + np.array([[loose * rng.uniform(-0.25, 0.25), 0], [0, 0], [0, 0]])
    return ends


def in_one_stroke(points):
    """The line along which people draw a star without lifting the pen, from its contour."""
    return points[:: 2 * STEPS][[0, 2, 4, 1, 3]]


def shake(count, rng, size):
    """(count, 2) a hand's slow wander along a closed line."""
    around = np.linspace(0, 2 * math.pi, count, endpoint=False)
    waves = [[(rng.gauss(0, 1), rng.uniform(0, 7)) for _ in range(5)] for _ in range(2)]
    sums = [sum(a / (n + 2) * np.sin((n + 2) * around + p) for n, (a, p) in enumerate(one)) for one in waves]
    return size * np.stack(sums, 1) * 2


def fill(points, size):
    """The pixels inside a contour, in a picture of this width and height."""
    image = Image.new("L", size, 0)
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], 255)
    return np.asarray(image) > 0


def stroke(points, size, width):
    """The pixels of a line along a contour."""
    image = Image.new("L", size, 0)
    closed = [tuple(point) for point in (*points, points[0], points[1])]
    ImageDraw.Draw(image).line(closed, 255, max(1, round(width)), joint="curve")
    return np.asarray(image) > 0


def box_of(mask):
    """(left, top, right, bottom) of a mask's pixels, right and bottom outside; None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def lone_mask(rng, habits, kind=None):
    """One shape somewhere in a picture: its kind, whether it is a stroke, its mask and box."""
    kind = kind or rng.choice(KINDS)
    while True:
        size = rng.randint(64, 320), rng.randint(64, 320)
        side = rng.uniform(0.25, 0.9) * min(size)
        points = contour(kind, rng, habits) * side
        low, high = points.min(0), points.max(0)
        where = [rng.uniform(-one, max(-one, edge - two)) for one, two, edge in zip(low, high, size, strict=True)]
        if rng.random() < habits.cut:
            axis = rng.randrange(2)
            over = rng.uniform(0.05, 0.25) * (high - low)[axis]
            where[axis] = -low[axis] - over if rng.random() < 0.5 else size[axis] - high[axis] + over
        outlined = rng.random() < habits.outlined
        points = points + np.array(where)
        mask = stroke(points, size, rng.uniform(0.06, 0.14) * side) if outlined else fill(points, size)
        box = box_of(mask)
        if box is not None and min(box[2] - box[0], box[3] - box[1]) >= 12:
            return kind, outlined, mask, box
