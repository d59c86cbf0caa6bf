"""For each number that is said of the answer and of two runs, what it must be by a whole trace."""

import functools
import math

import numpy as np
from expected import rms
from explained import the_box

import npgemma
from npgemma.base.describe import size_of


def pieces(f, ids=None):
    """Tokens, those of the answer if none are given, words in quotes."""
    ids = f.answer.ids if ids is None else ids
    if f.model.tokenizer is None:
        return ["<image>" if id == f.cfg.image_token_id else f"#{id}" for id in ids]
    found = [f.model.tokenizer.piece(id).replace("▁", " ") for id in ids]
    return [piece if piece[0] == "<" else repr(piece) for piece in found]


def guesses(f):
    """For each token of the answer, the likeliest one after each block."""
    weight = np.asarray(f.model.weights["text.norm.weight"], np.float64)
    table = np.asarray(f.model.weights["text.embedded.weight"], np.float64)
    return [[int(np.argmax(table @ (row / rms(row) * (1 + weight)))) for row in rows]
            for rows in zip(*(f.steps(f"text.blocks.{n}.out") for n in range(f.cfg.text.depth)), strict=True)]


def cache_bytes(f):
    cfg = f.cfg.text
    return 2 * cfg.num_kv_heads * cfg.head_dim * 4 * cfg.depth


def kept_of_prompt(f):
    return [name for name in f.run.arrays if not name.startswith("step.")]


def second(f):
    """The second run's prompt, and a whole trace of it."""
    prompt = {"compared": "ocr"}.get(f.case, "caption en")
    return prompt, traced(str(f.picture), prompt)


@functools.cache
def traced(picture, prompt):
    """A whole trace of a prompt, made once."""
    return npgemma.trace(the_box(), picture, prompt, max_new_tokens=1)


@functools.cache
def second_answer(picture, prompt):
    """What the second run must have answered."""
    return npgemma.generate(the_box(), picture, prompt)


def box(f):
    return npgemma.locate(f.model, f.answer, str(f.picture))[0][0].box


EXPECTED = {
    "lens": {
        "count": lambda f: len(f.answer.ids),
        "settled": lambda f: np.mean(
            [next(n for n in range(len(best)) if len(set(best[n:])) == 1) for best in guesses(f)]),
        "repeated": lambda f: sum(
            best[0] == read for best, read in zip(guesses(f), [f.ids[-1], *f.answer.ids], strict=False)),
        "last": lambda f: f.cfg.text.depth - 1,
    },
    "choice": {
        "vocabulary": lambda f: f.whole["text.logits"].shape[-1],
        "first": lambda f: pieces(f)[0],
        "sure": lambda f: math.exp(f.answer.logprobs[0]),
        "least": lambda f: int(np.argmin(f.answer.logprobs)),
        "unsure": lambda f: pieces(f)[int(np.argmin(f.answer.logprobs))],
        "unsure_prob": lambda f: math.exp(min(f.answer.logprobs)),
        "product": lambda f: math.exp(sum(f.answer.logprobs)),
    },
    "cache": {
        "row": lambda f: size_of(cache_bytes(f)),
        "start": lambda f: size_of(cache_bytes(f) * len(f.ids)),
        "prompt": lambda f: len(f.ids),
        "end": lambda f: size_of(cache_bytes(f) * (len(f.ids) + len(f.answer.ids) - 1)),
        "once": lambda f: len(f.ids) + len(f.answer.ids) - 1,
        "again": lambda f: sum(range(len(f.ids), len(f.ids) + len(f.answer.ids))),
        "low": lambda f: len(f.ids),
        "high": lambda f: len(f.ids) + len(f.answer.ids) - 1,
    },
    "compare-answers": {
        "prompt": lambda f: "caption en",
        "answer": lambda f: f.answer.text,
        "other_prompt": lambda f: second(f)[0],
        "other_answer": lambda f: second_answer(str(f.picture), second(f)[0]).text,
    },
    "compare-tensors": {
        "count": lambda f: len(kept_of_prompt(f)),
        "same": lambda f: sum(np.array_equal(f.whole[name], second(f)[1][name]) for name in kept_of_prompt(f)),
        "reshaped": lambda f: sum(f.whole[name].shape != second(f)[1][name].shape for name in kept_of_prompt(f)),
        "first": lambda f: next(
            name for name in kept_of_prompt(f) if not np.array_equal(f.whole[name], second(f)[1][name])),
    },
    "places": {
        "last": lambda f: 1023,
        "apart": lambda f: 1024 // 8,
        "count": lambda f: f.answer.text.count("<loc") // 4,
        "label": lambda f: box(f).label,
        "left": lambda f: box(f).corners[0],
        "top": lambda f: box(f).corners[1],
        "right": lambda f: box(f).corners[2],
        "bottom": lambda f: box(f).corners[3],
    },
}
