"""The conditions under which the model in the box is judged: how pictures are made, and what is asked about them.

Training never sees their seeds.  A condition is a function from a seed to a drawing (drawn_world.Drawing).
"""

import random
from dataclasses import dataclass, replace

import drawn_world
import numpy as np
from drawn_questions import ask_about
from drawn_world import PLAIN, Drawing, Ways, from_world, make_drawing, only
from PIL import Image
from world import HELD_OUT, make_scene

from npgemma.words.locations import read_boxes

# The model sees world.py's pictures at half their size: four pixels are two of its own.
SHIFT = 4
PAGES = {"white": 1.0, "grey": 1.0}


@dataclass(frozen=True)
class Thing:
    """An object that is to be found: its name, its box in pixels, its mask."""

    label: str
    box: tuple[int, int, int, int]
    mask: np.ndarray


@dataclass(frozen=True)
class Question:
    """A picture with a prompt and the answer that is right, and for boxes and masks what is to be found."""

    seed: int
    image: Image.Image
    prompt: str
    wanted: str
    things: tuple[Thing, ...]


def moved(seed):
    """A scene of world.py, everything but the ground moved by two of the model's pixels both ways."""
    rng, scene = random.Random(seed + 2), make_scene(seed)
    right, down = (rng.choice((-SHIFT, SHIFT)) for _ in range(2))
    away = np.array((right, down) * 2)
    shapes = tuple(replace(one, box=tuple(int(edge) for edge in one.box + away)) for one in scene.shapes)
    return from_world(replace(scene, shapes=shapes, word_box=tuple(int(edge) for edge in scene.word_box + away)))


def lit(seed):
    """A drawing on white or grey, shapes turned by up to 15 degrees, brighter or darker by 60 of 255."""
    drawing = make_drawing(seed, only(PLAIN, grounds=PAGES, turn=15))
    away = random.Random(seed).choice((-60, 60))
    pixels = np.clip(np.asarray(drawing.image).astype(int) + away, 0, 255).astype(np.uint8)
    return replace(drawing, image=Image.fromarray(pixels))


def drawn(**changes):
    """Drawings of upright shapes with something changed."""
    ways = only(PLAIN, **changes)
    return lambda seed: make_drawing(seed, ways)


CONDITIONS = {
    "known": lambda seed: from_world(make_scene(seed)),
    "moved": moved,
    "white": drawn(grounds={"white": 1.0}),
    "black": drawn(grounds={"black": 1.0}),
    "coloured": drawn(grounds={"coloured": 1.0}),
    "4:3": drawn(grounds=PAGES, frame=(4, 3)),
    "3:4": drawn(grounds=PAGES, frame=(3, 4)),
    "2:1": drawn(grounds=PAGES, frame=(2, 1)),
    "turned": drawn(grounds=PAGES, turn=15),
    "lit": lit,
    "anything": lambda seed: make_drawing(seed, Ways()),
    "empty": drawn_world.empty_drawing,
}


def question_of(task, drawing: Drawing):
    """A question of a task about a drawing, or None where it cannot bear it; codes are left out, masks say more."""
    found = ask_about(task, drawing, random.Random(drawing.seed + 1), lambda mask, box: ())
    if not found:
        return None
    things = []
    if task in ("detect", "segment") and found[1] != "nothing":
        for box in read_boxes(found[1], drawing.size)[0]:
            shapes = zip(drawing.scene.shapes, drawing.masks, strict=True)
            mask = next(mask for shape, mask in shapes if np.allclose(shape.box, box.corners, atol=0.5))
            things.append(Thing(box.label, box.corners, mask))
    return Question(drawing.seed, drawing.image, *found, tuple(things))


def make_questions(task, condition, seed, count):
    """So many questions of a task; the same pictures for a seed."""
    questions, number = [], HELD_OUT * (1 + seed)
    while len(questions) < count:
        question = question_of(task, CONDITIONS[condition](number))
        questions += [question] if question else []
        number += 1
    return questions
