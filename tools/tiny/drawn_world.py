"""The world as people draw it, for the next model in the box: scenes of world.py's shapes, drawn otherwise.

Grounds of any colour, white first, gradients and photographs' noise; frames from 1:3 to 3:1; shapes turned, filled,
outlined, cut by the edge, with a hand's wobble; JPEG; brightness and contrast.  A drawing follows from its seed alone;
seeds below ``HELD_OUT`` are for training, the others for judging.  Questions are those of world.py, with boxes in this
frame, and ``segment``; what is not in the picture gets ``nothing``.  Not supported: scenes of the model that is in the
box now, which world.py keeps unchanged.
"""

import io
import random
from dataclasses import dataclass, field, replace

import numpy as np
import world
from PIL import Image, ImageDraw, ImageFont
from shapes import Habits, box_of, contour, fill, stroke
from world import COLOURS, HELD_OUT, KINDS, PLURALS, Scene, Shape, ask  # noqa: F401

LONG_SIDE = (96, 256)  # pixels of a picture's longer side
LEAST, MOST = 0.13, 0.42  # of a shape's side, by the shorter side of the frame
SMALL = 0.24  # below it a shape is small; none lies within a tenth of it
# How far a colour must lie from what is behind it, in 0..255 of its farthest part.
CONTRAST = 70
PAINT = {"white": 0.45, "black": 0.08, "coloured": 0.17, "grey": 0.1, "gradient": 0.1, "photograph": 0.1}
TASKS = (*world.TASKS, "segment", "nothing")


@dataclass(frozen=True)
class Drawing:
    """A picture that is drawn: its pixels, the scene in world.py's words, and the mask of each shape.

    ``masks`` are (H, W) booleans in the order of ``scene.shapes``, of a whole outlined shape what it encloses; where
    shapes overlap, each mask is the shape's own, not what is left to be seen.
    """

    seed: int
    image: Image.Image
    scene: Scene
    masks: tuple[np.ndarray, ...]
    ground: str
    outlined: tuple[bool, ...] = field(default=())

    @property
    def size(self):
        return self.image.size


@dataclass(frozen=True)
class Ways:
    """How often drawings depart from the plainest: a white square page with upright filled shapes.

    Parameters
    ----------
    grounds : dict of str to float
        Weights of the kinds of ground.
    frame : float
        Longer side over the other, at most.
    habits : Habits
    jpeg, light : float
        How often a drawing was a JPEG, and how often it is brighter or darker, by up to ``brighter`` of 255.
    brighter : int
    """

    grounds: dict = field(default_factory=lambda: dict(PAINT))
    frame: float = 3.0
    habits: Habits = Habits(stretch=1.25, outlined=0.25, cut=0.08)
    jpeg: float = 0.3
    light: float = 0.4
    brighter: int = 60


PLAIN = Ways({"white": 1.0}, 1.0, Habits(0, 1.0, 0, 0, 0), 0, 0, 0)


def make_drawing(seed, ways=Ways(), counts=(1, 1, 1, 1, 1), words=0.3):
    """A drawing from its seed: one to five shapes by the weights ``counts``, and now and then a word."""
    rng = random.Random(seed)
    ground = rng.choices(tuple(ways.grounds), tuple(ways.grounds.values()))[0]
    size = make_frame(rng, ways.frame)
    count = rng.choices((1, 2, 3, 4, 5), counts)[0]
    pixels = make_ground(ground, size, rng)
    placed = None
    while placed is None:
        placed = place_shapes(rng, count, size, pixels, ways.habits)
    placed.sort(key=lambda one: one[0].middle)
    painting = rng.sample(range(count), count)
    for place in painting:
        shape, painted, _, _ = placed[place]
        pixels[painted] = shape.ink
    image = Image.fromarray(pixels.astype(np.uint8))
    word, word_box, ink = write_word(rng, image, [one[2] for one in placed], words if count <= 3 else 0.0)
    image = photographed(image, rng, ways)
    shapes = tuple(one[0] for one in placed)
    scene = Scene(seed, shapes, tuple(painting), word, word_box, ink, ground, ((0, 0, 0), (0, 0, 0)))
    return Drawing(seed, image, scene, tuple(one[2] for one in placed), ground, tuple(one[3] for one in placed))


def make_frame(rng, most):
    """Width and height: a third are square, the others anything up to ``most`` to 1, either way."""
    long = rng.randint(*LONG_SIDE)
    if most == 1 or rng.random() < 1 / 3:
        return long, long
    short = max(32, round(long / most ** rng.random()))
    return (long, short) if rng.random() < 0.5 else (short, long)


def make_ground(kind, size, rng):
    """(H, W, 3) what the shapes are drawn on."""
    width, height = size
    plain = {"white": (255, 255, 255), "black": (0, 0, 0)}
    if kind in plain:
        return np.broadcast_to(np.array(plain[kind], np.int16), (height, width, 3)).copy()
    if kind == "grey":
        return np.full((height, width, 3), rng.randint(60, 230), np.int16)
    one, two = (np.array([rng.randint(0, 255) for _ in range(3)], float) for _ in range(2))
    if kind == "coloured":
        return np.broadcast_to(one.astype(np.int16), (height, width, 3)).copy()
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * np.linspace(-1, 1, width) + np.sin(angle) * np.linspace(-1, 1, height)[:, None]
    ramp = ((across - across.min()) / max(float(np.ptp(across)), 1e-9))[..., None]
    two = one + (two - one) * 0.5  # a gradient leaves most colours to be seen
    drawn = one + (two - one) * ramp
    if kind == "photograph":
        noise = np.random.default_rng(rng.getrandbits(32))
        coarse = noise.normal(0, 14, (max(2, height // 8), max(2, width // 8), 3))
        layers = [np.asarray(Image.fromarray(coarse[..., c].astype(np.float32)).resize(size)) for c in range(3)]
        drawn = drawn + np.stack(layers, -1) + noise.normal(0, 8, (height, width, 3))
    return np.clip(drawn, 0, 255).astype(np.int16)


def place_shapes(rng, count, size, ground, habits):
    """So many (shape, painted pixels, mask, outlined), or None if this try ran out of room."""
    placed = []
    for _ in range(60):
        one = random_shape(rng, size, ground, habits)
        if one is not None and all(go_together(one[0], other[0], size) for other in placed):
            placed.append(one)
        if len(placed) == count:
            return placed
    return None


def random_shape(rng, size, ground, habits):
    """One shape somewhere: (shape, painted pixels, mask, outlined); None where it would not be seen."""
    kind, short = rng.choice(KINDS), min(size)
    side = short * rng.choice((rng.uniform(LEAST, SMALL * 0.9), rng.uniform(SMALL * 1.1, MOST)))
    points = contour(kind, rng, habits) * side
    low, high = points.min(0), points.max(0)
    away = [rng.uniform(1 - one, max(1 - one, edge - 1 - two)) for one, two, edge in zip(low, high, size, strict=True)]
    if rng.random() < habits.cut:
        axis = rng.randrange(2)
        over = rng.uniform(0.05, 0.25) * (high - low)[axis]
        away[axis] = -low[axis] - over if rng.random() < 0.5 else size[axis] - high[axis] + over
    points = points + np.array(away)
    inside = fill(points, size)
    outlined = rng.random() < habits.outlined
    line = stroke(points, size, max(2.0, side * rng.uniform(0.08, 0.16))) if outlined else inside
    mask = inside | line
    box = box_of(mask)
    if box is None or min(box[2] - box[0], box[3] - box[1]) < 6:
        return None
    colour = rng.choice(tuple(COLOURS))
    ink = tuple(min(255, max(0, part + rng.randint(-12, 12))) for part in COLOURS[colour])
    behind = ground[line].astype(float).mean(0)
    if np.abs(behind - np.array(ink)).max() < CONTRAST:
        return None  # what cannot be seen is not asked for
    shape = Shape(kind, colour, "small" if side < SMALL * short else "large", box, ink)
    return shape, line, mask, outlined


def go_together(one, two, size):
    """Whether two shapes can stand in one picture: "from left to right" is never in doubt, and both can be seen."""
    if abs(one.middle - two.middle) < 2 * max(4, size[0] / 20):
        return False
    shared = world._overlap(one.box, two.box)
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one.box, two.box))
    return shared == 0 or (shared <= 0.15 * smaller and one.colour != two.colour)


def write_word(rng, image, masks, often):
    """Write a word where there is room for it, often enough; gives it, its box and its colour."""
    nothing = "", (0, 0, 0, 0), (0, 0, 0)
    if rng.random() >= often:
        return nothing
    width, height = image.size
    word, tall = world._word(rng), round(min(image.size) * rng.uniform(0.16, 0.24))
    font = ImageFont.load_default(max(12, tall))
    canvas = ImageDraw.Draw(image)
    left, top, right, bottom = (int(edge) for edge in canvas.textbbox((0, 0), word, font))
    wide, high = right - left + 4, bottom - top + 4
    if wide >= width - 4 or high >= height - 4:
        return nothing
    taken = np.any(masks, axis=0)
    for _ in range(20):
        x, y = rng.randint(2, width - wide - 2), rng.randint(2, height - high - 2)
        behind = np.asarray(image)[y : y + high, x : x + wide].astype(float)
        if not taken[y : y + high, x : x + wide].any():
            ink = (10, 10, 10) if behind.mean() > 127 else (250, 250, 250)
            canvas.text((x + 2 - left, y + 2 - top), word, ink, font)
            return word, (x, y, x + wide, y + high), ink
    return nothing


def photographed(image, rng, ways):
    """The picture after a screen, a camera or a web page had it: other brightness and contrast, JPEG."""
    pixels = np.asarray(image).astype(float)
    if rng.random() < ways.light:
        pixels = (pixels - 128) * rng.uniform(0.75, 1.2) + 128 + rng.uniform(-ways.brighter, ways.brighter)
    drawn = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < ways.jpeg:
        kept = io.BytesIO()
        drawn.save(kept, "JPEG", quality=rng.randint(40, 95))
        drawn = Image.open(kept).convert("RGB")
    return drawn


# Questions. Each takes a drawing and a random generator and gives (prompt, answer), or None if there is none.


def ask_about(task, drawing, rng, codes=None):
    """A question of a task about a drawing.

    ``codes`` gives the sixteen codes of a mask and its box, as ``npgemma.encode_mask`` does with a codec.
    """
    if task == "detect":
        return detect(drawing, rng)
    if task == "segment":
        return segment(drawing, rng, codes)
    if task == "nothing":
        return nothing(drawing, rng)
    return ask(task, drawing.scene, rng)


def location_tokens(box, size):
    """``<loc>`` of top, left, bottom and right."""
    left, top, right, bottom = box
    edges = (top / size[1], left / size[0], bottom / size[1], right / size[0])
    return "".join(f"<loc{round(edge * 1023):04d}>" for edge in edges)


def wanted_of(drawing, rng):
    """One to three kinds to look for, now and then with a colour; some are there, and few are not."""
    there = sorted({shape.kind for shape in drawing.scene.shapes})
    wanted = [(None, kind) for kind in rng.sample(there, rng.randint(1, min(3, len(there))))]
    absent = [kind for kind in KINDS if kind not in there]
    if absent and len(wanted) < 3 and rng.random() < 0.15:
        wanted.append((None, rng.choice(absent)))
    if rng.random() < 0.3:
        shape = rng.choice(drawing.scene.shapes)
        wanted = [(shape.colour, shape.kind), *[one for one in wanted if one[1] != shape.kind]]
    return wanted


def named(colour, kind):
    """``red star``, or ``star``."""
    return f"{colour} {kind}" if colour else kind


def found_of(drawing, wanted):
    """Which shapes are wanted, from left to right: (place, name)."""
    return [(place, named(colour, kind)) for place, shape in enumerate(drawing.scene.shapes) for colour, kind in wanted
            if shape.kind == kind and colour in (None, shape.colour)]


def detect(drawing, rng):
    """Boxes of what is asked for."""
    wanted = wanted_of(drawing, rng)
    shapes = drawing.scene.shapes
    found = [f"{location_tokens(shapes[place].box, drawing.size)} {name}" for place, name in found_of(drawing, wanted)]
    return f"detect {' ; '.join(named(*one) for one in wanted)}", " ; ".join(found) or "nothing"


def segment(drawing, rng, codes):
    """Boxes and masks of what is asked for."""
    wanted, answers = wanted_of(drawing, rng)[:2], []
    for place, name in found_of(drawing, wanted):
        box = drawing.scene.shapes[place].box
        tokens = "".join(f"<seg{code:03d}>" for code in codes(drawing.masks[place], box))
        answers.append(f"{location_tokens(box, drawing.size)}{tokens} {name}")
    return f"segment {' ; '.join(named(*one) for one in wanted)}", " ; ".join(answers) or "nothing"


def nothing(drawing, rng):
    """A question about what is not there: the answer is ``nothing``, or none at all."""
    there = {shape.kind for shape in drawing.scene.shapes}
    absent = [kind for kind in KINDS if kind not in there]
    other = ("cat", "dog", "house", "tree", "car", "person", "sun", "hat")
    kind = rng.choice(absent) if absent and rng.random() < 0.5 else rng.choice(other)
    prompt = rng.choice((f"detect {kind}", f"segment {kind}", f"answer en what color is the {kind}?"))
    return prompt, "nothing"


def empty_drawing(seed, ways=Ways()):
    """A picture without any known thing, about which every question is answered ``nothing``."""
    rng = random.Random(seed)
    ground = rng.choices(tuple(ways.grounds), tuple(ways.grounds.values()))[0]
    size = make_frame(rng, ways.frame)
    image = photographed(Image.fromarray(make_ground(ground, size, rng).astype(np.uint8)), rng, ways)
    return Drawing(seed, image, Scene(seed, (), (), "", (0, 0, 0, 0), (0, 0, 0), ground, ((0,) * 3,) * 2), (), ground)


def answer_about_nothing(task, rng):
    """A question about an empty drawing, by its task."""
    kind = rng.choice(KINDS)
    prompts = {
        "caption en": "caption en", "caption de": "caption de", "count": f"answer en how many {PLURALS[kind]}?",
        "colour": f"answer en what color is the {kind}?", "beside": f"answer en what is left of the {kind}?",
        "yes/no": f"answer en is there a {kind}?", "detect": f"detect {kind}", "segment": f"segment {kind}",
        "ocr": "ocr",
    }
    known = {"count": "0", "yes/no": "no", "caption de": "nichts"}
    return prompts[task], known.get(task, "nothing")


def only(ways=Ways(), **changes):
    """Ways with something changed: ``only(PLAIN, frame=2.0)``; fields of Habits too."""
    habits = {name: changes.pop(name) for name in list(changes) if name in Habits.__dataclass_fields__}
    return replace(ways, habits=replace(ways.habits, **habits), **changes)
