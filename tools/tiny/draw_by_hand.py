"""Draw golden/tiny-box/drawn: twenty pictures by the habits of people in a paint program, with questions about them.

White pages of common sizes, five colours of a palette, a round brush of a few thick widths without antialias, corners
that overshoot, circles that do not quite close, stars in one stroke, crosses in two, now and then the bucket.  Nothing
here is shared with drawn_world.py, whose drawings are learnt from.  Answers are right by construction.

    python tools/tiny/draw_by_hand.py                   # writes the pictures and questions.json
    python tools/tiny/evaluate.py --only drawn          # how many the model in the box is right in
"""

import argparse
import json
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from npgemma.places.run_lengths import encode_runs  # noqa: E402

PALETTE = {"black": (0, 0, 0), "red": (237, 28, 36), "blue": (63, 72, 204), "green": (34, 177, 76),
           "yellow": (255, 242, 0)}
STAR = [(0.5, 0.0), (0.81, 0.95), (0.0, 0.36), (1.0, 0.36), (0.19, 0.95)]  # as the pen goes
SQUARE, TRIANGLE = [(0, 0), (1, 0), (1, 1), (0, 1)], [(0.5, 0), (1, 1), (0, 1)]


@dataclass(frozen=True)
class Stroke:
    """A shape by hand: what, in which colour, where its middle lies, how large (parts of the page), and how.

    ``filled`` shapes had the bucket; the others are the brush's line, as thick as ``brush``, a part of the side.
    """

    kind: str
    colour: str
    x: float
    y: float
    side: float
    filled: bool = False
    brush: float = 0.13


def line_of(kind):
    """The lines that a hand draws, in a box of side 1; a last point beside the first is an overshoot."""
    if kind == "circle":
        turns = [2 * math.pi * part / 40 - 1.2 for part in range(42)]
        return [[(0.5 + 0.5 * math.cos(turn), 0.5 + 0.5 * math.sin(turn)) for turn in turns]]
    if kind == "cross":
        return [[(0.5, 0.0), (0.52, 1.0)], [(0.0, 0.5), (1.0, 0.48)]]
    corners = {"star": STAR, "square": SQUARE, "triangle": TRIANGLE}[kind]
    return [[*corners, corners[0], tuple(0.96 * one + 0.04 * two for one, two in
                                         zip(corners[0], corners[1], strict=True))]]


def trembling(line, rng):
    """Points close to each other along a line, with what a hand does to it: a slow bend and a small shake."""
    bends = [(rng.uniform(-0.02, 0.02), rng.uniform(0, 6)) for _ in range(4)]
    found = []
    for (x, y), (to_x, to_y) in zip(line, line[1:], strict=False):
        for part in np.linspace(0, 1, 60):
            at_x, at_y = x + (to_x - x) * part, y + (to_y - y) * part
            bend = sum(size * math.sin(3 * (at_x + 2 * at_y) + phase) for size, phase in bends)
            found.append((at_x + bend, at_y - bend / 2))
    return found


def paint(stroke, size, rng):
    """(H, W) of booleans, the pixels that are painted, and those that the shape encloses."""
    short = min(size)
    side, left, top = stroke.side * short, stroke.x * size[0], stroke.y * size[1]
    radius = max(2, side * stroke.brush / 2)
    image = Image.new("L", size, 0)
    canvas = ImageDraw.Draw(image)
    for line in line_of(stroke.kind):
        for x, y in trembling(line, rng):
            x, y = left + (x - 0.5) * side, top + (y - 0.5) * side
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    painted = np.asarray(image) > 0
    enclosed, (left, top, right, bottom) = np.zeros_like(painted), image.getbbox()
    outside = image.crop((left - 1, top - 1, right + 1, bottom + 1))  # no more: the fill goes a pixel at a time
    ImageDraw.floodfill(outside, (0, 0), 128)
    enclosed[top:bottom, left:right] = np.asarray(outside)[1:-1, 1:-1] != 128
    return (enclosed if stroke.filled else painted), enclosed


S = Stroke
# The page, what is drawn on it one after the other, the question; the answer, or the numbers of the shapes to find.
PAGES = (
    ((640, 480), (S("circle", "red", 0.3, 0.4, 0.4),), "caption en", "a large red circle"),
    ((640, 480), (S("square", "blue", 0.62, 0.55, 0.38, True),), "caption en", "a large blue square"),
    ((500, 500), (S("star", "yellow", 0.4, 0.6, 0.4), S("circle", "black", 0.8, 0.2, 0.19, True)),
     "answer en what color is the star?", "yellow"),
    ((800, 600), (S("triangle", "green", 0.25, 0.6, 0.36), S("cross", "red", 0.7, 0.4, 0.36)),
     "answer en what is right of the triangle?", "red cross"),
    ((640, 480), (S("circle", "green", 0.2, 0.3, 0.2, True), S("circle", "blue", 0.5, 0.7, 0.34),
                  S("square", "black", 0.8, 0.35, 0.32)), "answer en how many circles?", "2"),
    ((600, 600), (S("cross", "black", 0.3, 0.3, 0.34), S("star", "red", 0.7, 0.65, 0.38, True)),
     "answer en is there a red star?", "yes"),
    ((640, 480), (S("square", "yellow", 0.35, 0.5, 0.4, True), S("circle", "blue", 0.52, 0.6, 0.34)),
     "answer en is there a triangle?", "no"),
    ((800, 600), (S("triangle", "red", 0.3, 0.4, 0.4, True),), "detect triangle", [0]),
    ((640, 480), (S("circle", "black", 0.25, 0.7, 0.32), S("star", "blue", 0.7, 0.3, 0.36, True)), "detect star", [1]),
    ((480, 640), (S("square", "green", 0.4, 0.25, 0.4), S("square", "red", 0.65, 0.75, 0.36, True)),
     "detect square", [0, 1]),
    ((640, 480), (S("circle", "red", 0.6, 0.45, 0.4, True),), "segment circle", [0]),
    ((600, 600), (S("square", "blue", 0.35, 0.4, 0.36), S("triangle", "yellow", 0.75, 0.75, 0.34, True)),
     "segment square", [0]),
    ((800, 600), (S("cross", "green", 0.3, 0.6, 0.38, brush=0.25), S("circle", "red", 0.7, 0.3, 0.2, True)),
     "segment cross", [0]),
    ((640, 480), (S("triangle", "black", 0.7, 0.5, 0.4),), "caption de", "ein großes schwarzes Dreieck"),
    ((500, 500), (S("circle", "yellow", 0.3, 0.25, 0.34, True), S("triangle", "blue", 0.68, 0.7, 0.38)),
     "caption en", "a large yellow circle and a large blue triangle"),
    ((640, 480), (S("square", "red", 0.2, 0.5, 0.34, True), S("cross", "blue", 0.5, 0.3, 0.34, brush=0.2),
                  S("circle", "green", 0.8, 0.65, 0.34)), "answer en what is left of the cross?", "red square"),
    ((640, 480), (S("star", "green", 0.3, 0.45, 0.4), S("square", "black", 0.72, 0.5, 0.36, True)),
     "answer en is the square left of the star?", "no"),
    ((800, 600), (S("circle", "blue", 0.2, 0.3, 0.32), S("circle", "red", 0.5, 0.65, 0.32),
                  S("circle", "yellow", 0.8, 0.3, 0.32, True)), "answer en how many shapes?", "3"),
    ((640, 480), (S("square", "black", 0.75, 0.3, 0.19, True), S("circle", "green", 0.3, 0.6, 0.38, True)),
     "answer en is the square small?", "yes"),
    ((640, 480), (S("cross", "red", 0.5, 0.5, 0.4, brush=0.2),), "detect cat", "nothing"),
)


def draw_page(number):
    """A picture, and the enclosed pixels of each shape."""
    size, strokes, _, _ = PAGES[number]
    pixels, masks = np.full((size[1], size[0], 3), 255, np.uint8), []
    rng = random.Random(number)
    for stroke in strokes:
        painted, enclosed = paint(stroke, size, rng)
        pixels[painted] = PALETTE[stroke.colour]
        masks.append(enclosed)
    return Image.fromarray(pixels), masks


def question_of(number, name, masks):
    """What is asked about a page and what is right, as ``npgemma generate --batch`` and ``evaluate`` read it."""
    _, strokes, prompt, answer = PAGES[number]
    asked = {"image": name, "prompt": prompt}
    if isinstance(answer, str):
        return asked | {"answer": answer}
    objects = []
    for place in sorted(answer, key=lambda one: strokes[one].x):
        rows, columns = np.flatnonzero(masks[place].any(1)), np.flatnonzero(masks[place].any(0))
        box = [int(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        objects.append({"label": strokes[place].kind, "box": box, "mask": encode_runs(masks[place])})
    return asked | {"objects": objects, "size": list(PAGES[number][0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "golden" / "tiny-box" / "drawn")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(len(PAGES)):
        image, masks = draw_page(number)
        name = f"{number:02d}.png"
        image.quantize(16).save(out / name, optimize=True)
        lines.append(json.dumps(question_of(number, name, masks)) + "\n")
    (out / "questions.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    main()
