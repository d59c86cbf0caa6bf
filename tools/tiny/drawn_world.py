"""The world as people draw it, for the next model in the box: scenes of world.py's shapes, drawn otherwise.

Grounds of any colour, white first, gradients and photographs' noise; frames from 1:3 to 3:1; shapes turned, filled,
outlined, cut by the edge, with a hand's wobble; JPEG; brightness and contrast.  A drawing follows from its seed alone;
seeds below ``HELD_OUT`` are for training, the others for judging.  drawn_questions.py asks about drawings.  The plain
greys of world.py's own scenes are a part of this world, and :func:`from_world` makes drawings of them.
"""

import io
import random
from dataclasses import dataclass, field, replace

import numpy as np
import world
from PIL import Image, ImageDraw, ImageFont
from shapes import Habits, box_of, contour, fill, in_one_stroke, stroke
from world import COLOURS, HELD_OUT, KINDS, Scene, Shape, draw, draw_shape  # noqa: F401

LONG_SIDE = (96, 192)  # pixels of a picture's longer side
SIZES = {"small": (0.15, 0.21), "large": (0.28, 0.42)}  # of a shape's side, by the shorter side of the frame
# What the model cannot see is not drawn: the least side of a shape, and of a letter of a word, in its 64 x 64 pixels.
SEEN, READ = 5.0, (3.4, 5.0)
# What people call by these names, in paint programs and on the web, beside world.py's own.
PAINTS = {
    "red": ((255, 0, 0), (237, 28, 36), (200, 0, 0), (244, 67, 54)),
    "green": ((0, 255, 0), (0, 128, 0), (34, 177, 76), (76, 175, 80), (0, 200, 0)),
    "blue": ((0, 0, 255), (63, 72, 204), (0, 112, 192), (33, 150, 243), (0, 0, 160)),
    "yellow": ((255, 255, 0), (255, 242, 0), (255, 235, 59), (255, 217, 0)),
    "purple": ((128, 0, 128), (163, 73, 164), (160, 32, 240), (112, 48, 160)),
    "brown": ((139, 69, 19), (101, 67, 33), (150, 75, 0), (121, 85, 72)),
    "black": ((0, 0, 0), (0, 0, 0), (35, 35, 35)),
    "white": ((255, 255, 255), (255, 255, 255), (240, 240, 240)),
}
# How far a colour must lie from what is behind it, in 0..255 of its farthest part.
CONTRAST = 70
PAINT = {"white": 0.45, "black": 0.08, "coloured": 0.17, "grey": 0.1, "gradient": 0.1, "photograph": 0.1}


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
    frame : float or (2)
        Longer side over the other, at most; or width to height.
    habits : Habits
    jpeg, light : float
        How often a drawing was a JPEG, and how often it is brighter or darker, by up to ``brighter`` of 255.
    brighter : int
    """

    grounds: dict = field(default_factory=lambda: dict(PAINT))
    frame: float | tuple[int, int] = 3.0
    habits: Habits = Habits(stretch=1.25, outlined=0.25, cut=0.08, loose=0.6)
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
    """Width and height: a third are square, the others anything up to ``most`` to 1, either way; or just ``most``."""
    long = rng.randint(*LONG_SIDE)
    if isinstance(most, tuple):
        return tuple(round(long * side / max(most)) for side in most)
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
        one = random_shape(rng, size, ground, habits, [other for other, _, _, _ in placed])
        if one is not None:
            placed.append(one)
        if len(placed) == count:
            return placed
    return None


def random_shape(rng, size, ground, habits, others):
    """One shape somewhere: (shape, painted pixels, mask, outlined); None where it would not be seen."""
    kind, word, outlined = rng.choice(KINDS), rng.choice(tuple(SIZES)), rng.random() < habits.outlined
    side = min(size) * rng.uniform(*SIZES[word])
    points = contour(kind, rng, habits) * side
    points = points + np.array(away(points, size, rng, habits.cut))
    ends = np.clip([points.min(0), points.max(0)], 0, size)
    colour, ink = an_ink(rng)
    about = Shape(kind, colour, word, tuple(int(edge) for edge in ends.reshape(4)), ink)
    seen = np.min((ends[1] - ends[0]) / size) * 64  # before anything is drawn, which takes longer
    if seen < SEEN + 2 * outlined or not all(go_together(about, other, size) for other in others):
        return None
    inside = line = fill(points, size)
    if outlined:
        along = in_one_stroke(points) if kind == "star" and rng.random() < 0.3 else points
        line = stroke(along, size, max(max(size) / 50, side * rng.uniform(0.07, 0.18)))
    mask = inside | line
    if not line.any() or np.abs(ground[line].mean(0) - np.array(ink)).max() < CONTRAST:
        return None  # what cannot be seen is not asked for
    return replace(about, box=box_of(mask)), line, mask, outlined


def away(points, size, rng, cut):
    """Where a shape is moved to: inside the picture, or now and then over its edge by up to a quarter."""
    low, high = points.min(0), points.max(0)
    where = [rng.uniform(1 - one, max(1 - one, edge - 1 - two)) for one, two, edge in zip(low, high, size, strict=True)]
    if rng.random() < cut:
        axis = rng.randrange(2)
        over = rng.uniform(0.05, 0.25) * (high - low)[axis]
        where[axis] = -low[axis] - over if rng.random() < 0.5 else size[axis] - high[axis] + over
    return where


def an_ink(rng):
    """A colour's name, and one that people call so."""
    colour = rng.choice(tuple(COLOURS))
    paint = COLOURS[colour] if rng.random() < 0.4 else rng.choice(PAINTS[colour])
    return colour, tuple(min(255, max(0, part + rng.randint(-12, 12))) for part in paint)


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
    word, tall = world._word(rng), round(min(image.size) * rng.uniform(0.16, 0.25))
    font = ImageFont.load_default(max(12, tall))
    canvas = ImageDraw.Draw(image)
    left, top, right, bottom = (int(edge) for edge in canvas.textbbox((0, 0), word, font))
    wide, high = right - left + 4, bottom - top + 4
    letter = wide / len(word) / width * 64, high / height * 64
    if wide >= width - 4 or high >= height - 4 or letter[0] < READ[0] or letter[1] < READ[1]:
        return nothing
    taken = np.any(masks, axis=0)
    for _ in range(20):
        x, y = rng.randint(2, width - wide - 2), rng.randint(2, height - high - 2)
        if not taken[y : y + high, x : x + wide].any():
            behind = np.asarray(image.crop((x, y, x + wide, y + high))).mean()
            ink = rng.choice([dark for dark in ((10, 10, 10), (250, 250, 250)) if abs(dark[0] - behind) > CONTRAST])
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


def empty_drawing(seed, ways=Ways()):
    """A picture without any known thing: a bare ground, or one with a few open lines."""
    rng = random.Random(seed)
    ground = rng.choices(tuple(ways.grounds), tuple(ways.grounds.values()))[0]
    size = make_frame(rng, ways.frame)
    image = Image.fromarray(make_ground(ground, size, rng).astype(np.uint8))
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        ends = [(rng.uniform(0, size[0]), rng.uniform(0, size[1])) for _ in range(rng.randint(2, 4))]
        ImageDraw.Draw(image).line(ends, an_ink(rng)[1], rng.randint(1, 6), joint="curve")
    image = photographed(image, rng, ways)
    return Drawing(seed, image, Scene(seed, (), (), "", (0, 0, 0, 0), (0, 0, 0), ground, ((0,) * 3,) * 2), (), ground)


def from_world(scene):
    """A drawing of one of world.py's scenes."""
    masks = []
    for shape in scene.shapes:
        image = Image.new("L", (world.SIDE, world.SIDE), 0)
        draw_shape(ImageDraw.Draw(image), shape.kind, shape.box, 255)
        masks.append(np.asarray(image) > 0)
    return Drawing(scene.seed, draw(scene), scene, tuple(masks), scene.background, (False,) * len(masks))


def only(ways=Ways(), **changes):
    """Ways with something changed: ``only(PLAIN, frame=2.0)``; fields of Habits too."""
    habits = {name: changes.pop(name) for name in list(changes) if name in Habits.__dataclass_fields__}
    return replace(ways, habits=replace(ways.habits, **habits), **changes)
