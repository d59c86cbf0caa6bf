"""The little world of the model in the box: pictures of coloured shapes and short words, and questions about them.

A scene follows from its seed alone. Seeds below ``HELD_OUT`` are for training, the others for judging.
Not supported: turned shapes, more than one word, more than five shapes.
"""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # pixels of a picture; the model sees it at half that size
HELD_OUT = 1_000_000_000  # the first seed that training never sees
MARGIN = 5  # pixels left free at the rim, so that a shifted scene stays inside
CENTRE_GAP = 8  # pixels between the centres of two shapes, sideways: "from left to right" is never in doubt
MAX_OVERLAP = 0.25  # part of the smaller box that the larger may share
SIZES = {"small": (20, 26), "large": (38, 48)}
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 150, 55),
    "blue": (40, 70, 215),
    "yellow": (245, 220, 40),
    "purple": (150, 50, 190),
    "brown": (115, 65, 20),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
# Corners in a box of side 1; each outline touches all four sides, so that the box of a shape is exact.
OUTLINES = {
    "circle": None,
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "star": (
        *((0.5, 0), (0.618, 0.382), (1, 0.382), (0.691, 0.618), (0.809, 1)),
        *((0.5, 0.764), (0.191, 1), (0.309, 0.618), (0, 0.382), (0.382, 0.382)),
    ),
    "cross": (
        *((0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67)),
        *((0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33)),
    ),
}
KINDS = tuple(OUTLINES)
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "cross": "crosses"}
GERMAN_COLOURS = {
    "red": "rot",
    "green": "grün",
    "blue": "blau",
    "yellow": "gelb",
    "purple": "violett",
    "brown": "braun",
    "black": "schwarz",
    "white": "weiß",
}
GERMAN_SIZES = {"small": "klein", "large": "groß"}
GERMAN_KINDS = {
    "circle": ("Kreis", "er"),
    "square": ("Quadrat", "es"),
    "triangle": ("Dreieck", "es"),
    "star": ("Stern", "er"),
    "cross": ("Kreuz", "es"),
}
CONSONANTS, VOWELS = "BCDFGHJKLMNPQRSTVWXZ", "AEIOUY"
FONT = ImageFont.load_default(24)
TASKS = ("caption en", "caption de", "count", "colour", "beside", "yes/no", "detect", "ocr")


@dataclass(frozen=True)
class Shape:
    """One shape: what it is, and its box ``(left, top, right, bottom)`` in pixels, right and bottom outside."""

    kind: str
    colour: str
    size: str
    box: tuple[int, int, int, int]
    ink: tuple[int, int, int]

    @property
    def middle(self):
        """Twice the horizontal centre: an integer."""
        return self.box[0] + self.box[2]


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn: shapes from left to right, the order of painting, a word, a background."""

    seed: int
    shapes: tuple[Shape, ...]
    painting: tuple[int, ...]
    word: str
    word_box: tuple[int, int, int, int]
    word_ink: tuple[int, int, int]
    background: str
    paper: tuple[tuple[int, int, int], tuple[int, int, int]]


def make_scene(seed, weights=(1, 1, 1, 1, 1), words=0.5, margin=MARGIN, rim=0.0):
    """A scene from its seed.

    Parameters
    ----------
    seed : int
        At least ``HELD_OUT`` for scenes to judge by.
    weights : sequence of float
        How often one, two, ... five shapes come; a curriculum begins with few.
    words : float
        How often a picture of at most three shapes has a word.
    margin : int
        Pixels left free at the rim.
    rim : float
        How often a shape is put right there, sideways and again up and down.
    """
    rng = random.Random(seed)
    background = rng.choice(("plain", "shaded", "noisy"))
    paper = (_grey(rng), _grey(rng))
    count = rng.choices((1, 2, 3, 4, 5), weights)[0]
    word, word_box = "", (0, 0, 0, 0)
    if count <= 3 and rng.random() < words:
        word = _word(rng)
        word_box = _place_word(rng, word, margin)
    boxes = None
    while boxes is None:
        boxes = _place_shapes(rng, count, word_box, margin, rim)
    painting = rng.sample(range(count), count)
    ink = rng.choice(((10, 10, 10), (250, 250, 250)))
    return Scene(seed, boxes, tuple(painting), word, word_box, ink, background, paper)


def _grey(rng):
    base = rng.randint(125, 180)
    return tuple(base + rng.randint(-12, 12) for _ in range(3))


def _word(rng):
    if rng.random() < 0.4:
        return str(rng.randint(10, 999))
    first, second, third = (rng.choice(CONSONANTS) for _ in range(3))
    pattern = rng.random()
    if pattern < 0.2:
        return rng.choice(VOWELS) + first
    if pattern < 0.7:
        return first + rng.choice(VOWELS) + second
    return first + rng.choice(VOWELS) + second + rng.choice(VOWELS)


def _place_word(rng, word, margin):
    width, height = int(FONT.getlength(word)) + 1, 18
    left = rng.randint(margin, SIDE - margin - width)
    top = rng.randint(margin, SIDE - margin - height)
    return left, top, left + width, top + height


def _place_shapes(rng, count, word_box, margin, rim):
    """Shapes from left to right, or None if this try ran out of room."""
    shapes = []
    for _ in range(40):
        shape = _random_shape(rng, margin, rim)
        if _overlap(shape.box, word_box) == 0 and all(_go_together(shape, other) for other in shapes):
            shapes.append(shape)
        if len(shapes) == count:
            return tuple(sorted(shapes, key=lambda shape: shape.middle))
    return None


def _random_shape(rng, margin, rim):
    size = rng.choice(("small", "large"))
    side = rng.randint(*SIZES[size])
    left, top = (_place(rng, margin, SIDE - margin - side, rim) for _ in range(2))
    colour = rng.choice(tuple(COLOURS))
    ink = tuple(min(255, max(0, part + rng.randint(-10, 10))) for part in COLOURS[colour])
    return Shape(rng.choice(KINDS), colour, size, (left, top, left + side, top + side), ink)


def _place(rng, first, last, rim):
    if rim and rng.random() < rim:
        away = rng.randint(0, MARGIN)
        return rng.choice((first + away, last - away))
    return rng.randint(first, last)


def _go_together(one, two):
    if abs(one.middle - two.middle) < 2 * CENTRE_GAP:
        return False
    shared = _overlap(one.box, two.box)
    smaller = min(one.box[2] - one.box[0], two.box[2] - two.box[0]) ** 2
    # Two touching shapes of one colour have no visible border.
    return shared == 0 or (shared <= MAX_OVERLAP * smaller and one.colour != two.colour)


def _overlap(one, two):
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    return max(width, 0) * max(height, 0)


def draw(scene, shift=(0, 0)):
    """The picture of a scene, everything but the background moved by ``shift`` (right, down) pixels."""
    image = Image.fromarray(_paper(scene))
    canvas = ImageDraw.Draw(image)
    for place in scene.painting:
        shape = scene.shapes[place]
        draw_shape(canvas, shape.kind, shape.box, shape.ink, shift)
    if scene.word:
        left, top, _, bottom = scene.word_box
        # "ls": the given point is the left end of the base line.
        canvas.text((left + shift[0], bottom + shift[1]), scene.word, scene.word_ink, FONT, "ls")
    return image


def draw_shape(canvas, kind, box, ink, shift=(0, 0)):
    """Paint one shape so that it fills its box; Pillow's last row and column are inside, ours are not."""
    left, top = box[0] + shift[0], box[1] + shift[1]
    side = box[2] - box[0] - 1
    if OUTLINES[kind] is None:
        canvas.ellipse((left, top, left + side, top + side), ink)
    else:
        canvas.polygon([(left + x * side, top + y * side) for x, y in OUTLINES[kind]], ink)


def _paper(scene):
    first, second = (np.array(grey, np.float32) for grey in scene.paper)
    rng = np.random.default_rng(scene.seed)
    if scene.background == "plain":
        return np.broadcast_to(first.astype(np.uint8), (SIDE, SIDE, 3)).copy()
    if scene.background == "noisy":
        grain = rng.integers(-25, 26, (SIDE, SIDE, 3), np.int16)
        return (grain + first.astype(np.int16)).astype(np.uint8)
    ramp = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None]
    shaded = (first + (second - first) * ramp).astype(np.uint8)
    direction = rng.integers(4)
    column = shaded[:: 1 if direction < 2 else -1, None]
    across = np.broadcast_to(column, (SIDE, SIDE, 3))
    return np.ascontiguousarray(across if direction % 2 else across.transpose(1, 0, 2))


# Questions. Each takes a scene and a random generator and gives (prompt, answer), or None if the scene cannot bear it.


def ask(task, scene, rng):
    """A question of a task about a scene: ``(prompt, answer)``, or None where it makes no sense."""
    return _ASKERS[task](scene, rng)


def _caption_en(scene, rng):
    parts = [f"a {shape.size} {shape.colour} {shape.kind}" for shape in scene.shapes]
    return "caption en", _listed(parts, "and")


def _caption_de(scene, rng):
    return "caption de", _listed([_german(shape) for shape in scene.shapes], "und")


def _german(shape):
    noun, ending = GERMAN_KINDS[shape.kind]
    return f"ein {GERMAN_SIZES[shape.size]}{ending} {GERMAN_COLOURS[shape.colour]}{ending} {noun}"


def _listed(parts, conjunction):
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} {conjunction} {parts[-1]}"


def _count(scene, rng):
    if rng.random() < 0.2:
        return "answer en how many shapes?", str(len(scene.shapes))
    kind = rng.choice(scene.shapes).kind if rng.random() < 0.8 else rng.choice(KINDS)
    return f"answer en how many {PLURALS[kind]}?", str(sum(shape.kind == kind for shape in scene.shapes))


def _only_ones(scene):
    kinds = [shape.kind for shape in scene.shapes]
    return [place for place, kind in enumerate(kinds) if kinds.count(kind) == 1]


def _colour(scene, rng):
    places = _only_ones(scene)
    if not places:
        return None
    shape = scene.shapes[rng.choice(places)]
    return f"answer en what color is the {shape.kind}?", shape.colour


def _beside(scene, rng):
    """The next shape to the left or to the right; shapes are kept from left to right."""
    places = _only_ones(scene)
    if not places:
        return None
    place = rng.choice(places)
    side, step = rng.choice((("left", -1), ("right", 1)))
    other = place + step
    found = 0 <= other < len(scene.shapes)
    answer = f"{scene.shapes[other].colour} {scene.shapes[other].kind}" if found else "nothing"
    return f"answer en what is {side} of the {scene.shapes[place].kind}?", answer


def _yes_no(scene, rng):
    places = _only_ones(scene)
    choice = rng.random()
    if choice < 0.25 and len(places) >= 2:
        one, two = rng.sample(places, 2)
        names = scene.shapes[one].kind, scene.shapes[two].kind
        return f"answer en is the {names[0]} left of the {names[1]}?", _yes(one < two)
    if choice < 0.45 and places:
        shape = scene.shapes[rng.choice(places)]
        size = rng.choice(("small", "large"))
        return f"answer en is the {shape.kind} {size}?", _yes(shape.size == size)
    if choice < 0.65:
        there = [shape.kind for shape in scene.shapes]
        kind = rng.choice(there) if rng.random() < 0.5 else rng.choice(KINDS)
        return f"answer en is there a {kind}?", _yes(kind in there)
    pairs = [(shape.colour, shape.kind) for shape in scene.shapes]
    pair = rng.choice(pairs)
    if rng.random() < 0.5:
        # A wrong pair keeps a shape or a colour of the picture: guessing from one of the two is not enough.
        pair = rng.choice(((pair[0], rng.choice(KINDS)), (rng.choice(tuple(COLOURS)), pair[1])))
    return f"answer en is there a {pair[0]} {pair[1]}?", _yes(pair in pairs)


def _yes(truth):
    return "yes" if truth else "no"


def _detect(scene, rng):
    there = sorted({shape.kind for shape in scene.shapes})
    wanted = rng.sample(there, rng.randint(1, min(3, len(there))))
    absent = [kind for kind in KINDS if kind not in there]
    if absent and len(wanted) < 3 and rng.random() < 0.15:
        wanted.append(rng.choice(absent))
    found = [f"{_box_tokens(shape.box)} {shape.kind}" for shape in scene.shapes if shape.kind in wanted]
    return f"detect {' ; '.join(wanted)}", " ; ".join(found)


def _box_tokens(box):
    left, top, right, bottom = (round(edge / SIDE * 1023) for edge in box)
    return "".join(f"<loc{value:04d}>" for value in (top, left, bottom, right))


def _ocr(scene, rng):
    return ("ocr", scene.word) if scene.word else None


_ASKERS = dict(zip(TASKS, (_caption_en, _caption_de, _count, _colour, _beside, _yes_no, _detect, _ocr), strict=True))
