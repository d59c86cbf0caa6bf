"""Batches for training the model in the box: a pure function of the step, so that training can stop and go on.

Letters: B pictures, Q questions, T positions of text, P patches (8 x 8).
"""

import random
import string

import numpy as np
import sentencepiece
from PIL import Image, ImageDraw
from world import COLOURS, FONT, HELD_OUT, KINDS, SIDE, ask, draw, draw_shape, make_scene

GRID = 8  # patches a side
RESOLUTION = 64  # pixels a side that the model sees
BOS, EOS, PAD = 2, 1, 0
CHARACTERS = string.digits + string.ascii_uppercase
# Until a step: how often one to five shapes come; how often a word where there is room; pixels left free at the rim;
# how often a shape is put right there. Few shapes first. Reading takes longest to learn, so later most pictures have a
# word. The world leaves a wide rim: what moved into it was found half of the time until shapes were put there.
CURRICULUM = (
    (260, (6, 4, 1, 0, 0), 0.5, 5, 0.0),
    (780, (2, 3, 3, 2, 1), 0.5, 5, 0.0),
    (1250, (2, 3, 4, 5, 6), 0.5, 5, 0.0),
    (2500, (3, 4, 5, 5, 6), 0.9, 5, 0.0),
    (3250, (4, 5, 6, 5, 6), 1.0, 5, 0.0),
    (3740, (4, 5, 6, 5, 6), 1.0, 1, 0.0),
    (HELD_OUT, (4, 5, 6, 5, 6), 1.0, 1, 0.25),
)
# Questions are sorted into three lots of one length each: (questions a picture, positions of text).
SHORT, MIDDLE, LONG = (4, 17), (1.5, 24), (1.5, 42)
LOTS = (SHORT, MIDDLE, LONG)


def pixels(image):
    """(64, 64, 3) bytes, resized as the released processors resize."""
    return np.asarray(image.resize((RESOLUTION, RESOLUTION), Image.BICUBIC))


def make_batch(step, size, part, parts, tokenizer):
    """All that one training step wants.

    Parameters
    ----------
    step : int
        Chooses the scenes, and the stage of the curriculum.
    size : int
        B.
    part, parts : int
        Which of several processes this batch is for: each step has ``parts`` batches.

    Returns
    -------
    dict
        ``pixels (B, 64, 64, 3)`` uint8; ``lots``: three of (``picture (Q,)``, ``ids (Q, T)``, ``prefix (Q,)``,
        ``labels (Q, T)``, ``weights (Q, T)``); and what each patch shows, see :func:`look`.
    """
    stage = next(stage for until, *stage in CURRICULUM if step < until)
    lot = step * parts + part
    rng = random.Random(lot)
    pictures, answers, short, long = [], [], [], []
    for place in range(size):
        seed = lot * size + place
        if seed >= HELD_OUT:
            raise ValueError(f"step {step}: seed {seed} is kept for judging; want less than {HELD_OUT}")
        scene = make_scene(seed, *stage)
        pictures.append(pixels(draw(scene)))
        answers.append(look(scene))
        short += [(place, *question) for question in _short_questions(scene, rng)]
        long += [(place, *question) for question in _long_questions(scene, rng)]
    encoded = sorted((encode(tokenizer, *question) for question in long), key=lambda one: len(one[1]) + len(one[2]))
    half = len(encoded) // 2
    lots = ([encode(tokenizer, *question) for question in short], encoded[:half], encoded[half:])
    batch = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    batch["pixels"] = np.stack(pictures)
    batch["lots"] = [arrange(lot, length) for lot, (_, length) in zip(lots, LOTS, strict=True)]
    return batch


def _short_questions(scene, rng):
    """Four questions with short answers; reading counts twice, since it takes longest to learn."""
    tasks = ["beside", *rng.sample(("count", "count", "colour", "yes/no", "yes/no"), 3)]
    if scene.word:
        tasks[1:3] = "ocr", "ocr"
    elif rng.random() < 0.05:
        tasks[1] = "ocr"
    return [_ask_anyway(task, scene, rng) for task in tasks]


def _ask_anyway(task, scene, rng):
    """A question of this task, or where the scene cannot bear it: nothing to read, or a yes/no question."""
    if task == "ocr" and not scene.word:
        return "ocr", ""
    return ask(task, scene, rng) or ask("yes/no", scene, rng)


def _long_questions(scene, rng):
    return [ask(task, scene, rng) for task in (rng.choice(("caption en", "caption de")), "detect", "detect")]


def encode(tokenizer, picture, prompt, answer):
    prefix = [BOS, *tokenizer.encode(prompt + "\n")]
    return picture, prefix, [*tokenizer.encode(answer), EOS]


def arrange(questions, length):
    """Arrays of one lot; an answer that is too long is cut, and what stays is still a lesson."""
    ids = np.full((len(questions), length), PAD, np.int64)
    labels = np.full((len(questions), length), -100, np.int64)
    weights = np.zeros((len(questions), length), np.float32)
    for row, (_, prefix, suffix) in enumerate(questions):
        text = (prefix + suffix)[:length]
        ids[row, : len(text)] = text
        first, last = len(prefix) - 1, min(len(prefix) + len(suffix) - 1, length)
        labels[row, first:last] = suffix[: last - first]
        weights[row, first:last] = len(suffix) ** -0.5
    picture = np.array([question[0] for question in questions])
    prefix = np.array([len(question[1]) for question in questions])
    return {"picture": picture, "ids": ids, "prefix": prefix, "labels": labels, "weights": weights}


def look(scene):
    """What each patch shows, for the lessons that the vision tower gets by itself; -1 or 0 where there is nothing.

    Returns
    -------
    dict
        ``kind, colour, size, rank (P,)`` of the shape that fills most of the patch; ``box (P, 4)``: its sides in
        pictures, from the middle of the patch; ``left, right (P,)``: the character whose middle lies in that half;
        ``left_place, right_place (P,)``: its place in the word; ``counts (5,)``: shapes of each kind.
    """
    names = ("kind", "colour", "size", "rank", "left", "right", "left_place", "right_place")
    seen = {name: np.full(GRID * GRID, -1, np.int64) for name in names}
    seen["box"] = np.zeros((GRID * GRID, 4), np.float32)
    for patch, place in enumerate(_owners(scene)):
        if place < 0:
            continue
        shape = scene.shapes[place]
        seen["kind"][patch], seen["rank"][patch] = KINDS.index(shape.kind), place
        seen["colour"][patch], seen["size"][patch] = tuple(COLOURS).index(shape.colour), shape.size == "large"
        middle = (np.array([patch % GRID, patch // GRID] * 2) + 0.5) / GRID
        seen["box"][patch] = np.array(shape.box) / SIDE - middle
    for place, character in enumerate(scene.word):
        left = scene.word_box[0] + FONT.getlength(scene.word[:place])
        right = scene.word_box[0] + FONT.getlength(scene.word[: place + 1])
        column, row = int((left + right) / 2 * 2 * GRID / SIDE), int((scene.word_box[3] - 8.5) * GRID / SIDE)
        half, patch = ("left", "right")[column % 2], row * GRID + column // 2
        seen[half][patch], seen[f"{half}_place"][patch] = CHARACTERS.index(character), place
    kinds = [shape.kind for shape in scene.shapes]
    seen["counts"] = np.array([kinds.count(kind) for kind in KINDS])
    return seen


def _owners(scene):
    """(P,) which shape fills most of each patch, -1 where none fills an eighth."""
    image = Image.new("L", (SIDE, SIDE), 0)
    canvas = ImageDraw.Draw(image)
    for place in scene.painting:
        draw_shape(canvas, scene.shapes[place].kind, scene.shapes[place].box, place + 1)
    cells = np.asarray(image).reshape(GRID, SIDE // GRID, GRID, SIDE // GRID).transpose(0, 2, 1, 3)
    cells = cells.reshape(GRID * GRID, -1)
    filled = np.stack([(cells == place + 1).sum(1) for place in range(len(scene.shapes))])
    return np.where(filled.max(0) >= cells.shape[1] / 8, filled.argmax(0), -1)


def load_tokenizer(path):
    """The vocabulary, read with SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
