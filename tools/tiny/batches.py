"""Batches for training the model in the box: a pure function of the step, so that training can stop and go on.

Letters: B pictures, Q questions, T positions of text, P patches (8 x 8).
"""

import random
import string

import numpy as np
import sentencepiece
from drawn_questions import COLOURED, ask_about
from drawn_world import Ways, empty_drawing, from_world, make_drawing, only
from PIL import Image
from world import COLOURS, FONT, HELD_OUT, KINDS, make_scene

from npgemma.places.segments import encode_mask

GRID = 8  # patches a side
RESOLUTION = 64  # pixels a side that the model sees
BOS, EOS, PAD = 2, 1, 0
MASKS = range(1663, 1791)  # ids of <seg000> to <seg127>
CHARACTERS = string.digits + string.ascii_uppercase
# Until a part of the run: how often one to five shapes come; how often a word where there is room; pixels left free at
# the rim of world.py's scenes, and how often a shape is put right there; how drawings are drawn. Few shapes first, in
# the plainer ways. Reading takes longest to learn, so later most pictures have a word.
EASY = only(Ways(), frame=1.5, turn=6, outlined=0.1, cut=0.0, loose=0.2, jpeg=0.0, light=0.1)
CURRICULUM = (
    (0.05, (6, 4, 1, 0, 0), 0.5, 5, 0.0, EASY),
    (0.15, (2, 3, 3, 2, 1), 0.5, 5, 0.0, Ways()),
    (0.30, (2, 3, 4, 5, 6), 0.6, 5, 0.0, Ways()),
    (0.60, (3, 4, 5, 5, 6), 0.9, 1, 0.1, Ways()),
    (1.00, (4, 5, 6, 5, 6), 1.0, 1, 0.2, Ways()),
)
KNOWN, EMPTY = 0.35, 0.03  # how often a picture is one of world.py's scenes, or has nothing in it
# Questions about a picture: the vision tower costs less than one of them, so many pictures with few of them.
QUESTIONS = 3
OFTEN = {"caption en": 0.9, "caption de": 0.9, "count": 0.8, "colour": 0.4, "beside": 1.2, "yes/no": 1.0, "detect": 1.6,
         "ocr": 5.0, "segment": 1.5, "nothing": 0.5, "stray": 0.15}
LOTS = 6  # questions of a batch are sorted by length into so many
MASK_WEIGHT = 0.5  # of a <seg> token: often another one paints nearly the same


def pixels(image):
    """(64, 64, 3) bytes, resized as the released processors resize."""
    return np.asarray(image.resize((RESOLUTION, RESOLUTION), Image.BICUBIC))


def make_batch(step, steps, size, part, parts, tokenizer, codec, often=OFTEN, coloured=COLOURED):
    """All that one training step wants.

    Parameters
    ----------
    step, steps : int
        Choose the pictures, and the stage of the curriculum.
    size : int
        B.
    part, parts : int
        Which of several micro-batches this is: each step has ``parts``.
    often : dict of str to float
        How often each task is asked.
    coloured : float
        How often a colour is named where things are looked for.

    Returns
    -------
    dict
        ``pixels (B, 64, 64, 3)`` uint8; ``lots``: some of (``picture (Q,)``, ``ids (Q, T)``, ``prefix (Q,)``,
        ``labels (Q, T)``, ``weights (Q, T)``); and what each patch shows, see :func:`look`.
    """
    stage = next(stage for until, *stage in CURRICULUM if step < until * steps)
    lot = step * parts + part
    if (lot + 1) * size > HELD_OUT:
        raise ValueError(f"step {step}: seed {(lot + 1) * size - 1} is kept for judging; want less than {HELD_OUT}")
    rng, drawings, questions = random.Random(lot), [], []
    for place in range(size):
        drawing = a_picture(lot * size + place, rng, *stage)
        drawings.append(drawing)
        asked = questions_about(drawing, rng, codec, often, coloured)
        questions += [encode(tokenizer, place, *question) for question in asked]
    questions.sort(key=lambda one: len(one[1]) + len(one[2]))
    ends = sorted({len(questions) * lot // LOTS for lot in range(LOTS + 1)})
    answers = [look(drawing) for drawing in drawings]
    batch = {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}
    batch["pixels"] = np.stack([pixels(drawing.image) for drawing in drawings])
    batch["lots"] = [arrange(questions[first:last]) for first, last in zip(ends, ends[1:], strict=False)]
    return batch


def a_picture(seed, rng, counts, words, margin, rim, ways):
    """A drawing: one of world.py's scenes, one as people draw, or one without anything in it."""
    chance = rng.random()
    if chance < EMPTY:
        return empty_drawing(seed, ways)
    if chance < EMPTY + KNOWN:
        return from_world(make_scene(seed, counts, words, margin, rim))
    return make_drawing(seed, ways, counts, words)


def questions_about(drawing, rng, codec, often, coloured):
    """Different questions about a picture, where the picture has what they ask for."""

    def codes(mask, box):
        return encode_mask(codec, mask, box).segments

    # Of random numbers to the power of 1 / weight the largest (Efraimidis & Spirakis 2006): without repetition.
    keys = {task: rng.random() ** (1 / weight) for task, weight in often.items()}
    found = []
    for task in sorted(keys, key=keys.get, reverse=True):
        question = ask_about(task, drawing, rng, codes, coloured) if len(found) < QUESTIONS else None
        found += [question] if question else []
    return found


def encode(tokenizer, picture, prompt, answer):
    prefix = [BOS, *tokenizer.encode(prompt + "\n")]
    return picture, prefix, [*tokenizer.encode(answer), EOS]


def arrange(questions):
    """Arrays of one lot, as long as its longest question with its answer."""
    length = max(len(prefix) + len(suffix) for _, prefix, suffix in questions)
    ids = np.full((len(questions), length), PAD, np.int64)
    labels = np.full((len(questions), length), -100, np.int64)
    weights = np.zeros((len(questions), length), np.float32)
    for row, (_, prefix, suffix) in enumerate(questions):
        ids[row, : len(prefix) + len(suffix)] = prefix + suffix
        first, last = len(prefix) - 1, len(prefix) + len(suffix) - 1
        labels[row, first:last] = suffix
        weights[row, first:last] = [MASK_WEIGHT if token in MASKS else 1.0 for token in suffix]
        weights[row] *= len(suffix) ** -0.5
    picture = np.array([question[0] for question in questions])
    prefix = np.array([len(question[1]) for question in questions])
    return {"picture": picture, "ids": ids, "prefix": prefix, "labels": labels, "weights": weights}


def look(drawing):
    """What each patch shows, for the lessons that the vision tower gets by itself; -1 or 0 where there is nothing.

    Returns
    -------
    dict
        ``kind, colour, size, rank (P,)`` of the shape that fills most of the patch; ``box (P, 4)``: its sides in
        pictures, from the middle of the patch; ``inside (P, 64)``: which of its pixels lie in a shape;
        ``left, right (P,)``: the character whose middle lies in that half; ``left_place, right_place (P,)``: its place
        in the word; ``counts (5,)``: shapes of each kind.
    """
    names = ("kind", "colour", "size", "rank", "left", "right", "left_place", "right_place")
    seen = {name: np.full(GRID * GRID, -1, np.int64) for name in names}
    seen["box"] = np.zeros((GRID * GRID, 4), np.float32)
    cells = cells_of(drawing)
    seen["inside"] = cells > 0
    for patch, place in enumerate(owners(cells, len(drawing.masks))):
        if place < 0:
            continue
        shape = drawing.scene.shapes[place]
        seen["kind"][patch], seen["rank"][patch] = KINDS.index(shape.kind), place
        seen["colour"][patch], seen["size"][patch] = tuple(COLOURS).index(shape.colour), shape.size == "large"
        middle = (np.array([patch % GRID, patch // GRID] * 2) + 0.5) / GRID
        seen["box"][patch] = np.array(shape.box) / (drawing.size * 2) - middle
    for place, character, across, down in characters(drawing):
        half, patch = ("left", "right")[int(across * 2 * GRID) % 2], int(down * GRID) * GRID + int(across * GRID)
        seen[half][patch], seen[f"{half}_place"][patch] = CHARACTERS.index(character), place
    kinds = [shape.kind for shape in drawing.scene.shapes]
    seen["counts"] = np.array([kinds.count(kind) for kind in KINDS])
    return seen


def characters(drawing):
    """Each character of the word: its place in it, itself, and where its middle lies, in pictures."""
    word, (left, top, right, bottom) = drawing.scene.word, drawing.scene.word_box
    whole = FONT.getlength(word) if word else 1
    for place, character in enumerate(word):
        part = (FONT.getlength(word[:place]) + FONT.getlength(word[: place + 1])) / 2 / whole
        yield place, character, (left + part * (right - left)) / drawing.size[0], (top + bottom) / 2 / drawing.size[1]


def cells_of(drawing):
    """(P, 64) for each pixel of each patch 1 + the shape that is seen there, outlined ones whole; 0 for the ground."""
    labels = np.zeros(drawing.size[::-1], np.uint8)
    for place in drawing.scene.painting:
        labels[drawing.masks[place]] = place + 1
    small = np.asarray(Image.fromarray(labels).resize((RESOLUTION, RESOLUTION), Image.NEAREST))
    side = RESOLUTION // GRID
    return small.reshape(GRID, side, GRID, side).transpose(0, 2, 1, 3).reshape(GRID * GRID, side * side)


def owners(cells, count):
    """(P,) which shape fills most of each patch, -1 where none fills an eighth."""
    if not count:
        return np.full(len(cells), -1)
    filled = np.stack([(cells == place + 1).sum(1) for place in range(count)])
    return np.where(filled.max(0) >= cells.shape[1] / 8, filled.argmax(0), -1)


def load_tokenizer(path):
    """The vocabulary, read with SentencePiece."""
    return sentencepiece.SentencePieceProcessor(model_file=str(path))
