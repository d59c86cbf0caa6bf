"""Models for the tests of generation and of the command: the goldens' own, and one that says what it is told to say."""

import dataclasses
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from random_models import GENERATIONS, random_model
from safetensors.numpy import load_file

from npgemma.checkpoints.loading import load
from npgemma.generation.requests import Request
from npgemma.words.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = ("gen-1", "gen-2")
OURS = {
    "suppress_tokens": "suppress_ids",
    "eos_token_id": "stop_ids",
    "num_return_sequences": "num_return",
}


@functools.cache
def golden_model(name, dtype="float32"):
    """The tiny random checkpoint that transformers answered with."""
    return load(GOLDEN / "generation" / name, dtype=dtype)


@functools.cache
def golden_answers(name):
    """What transformers was asked and what it answered."""
    return json.loads((GOLDEN / "generation" / name / "answers.json").read_text())


@functools.cache
def golden_arrays(name):
    """Pictures, and logits before and after the sampler settings."""
    return load_file(GOLDEN / "generation" / name / "inputs.safetensors")


def request(name, row):
    """One of the golden prompts, with its pictures."""
    prompt = golden_answers(name)["prompts"][row]
    pixels = golden_arrays(name)["pictures"][prompt["pictures"]] if prompt["pictures"] else None
    return Request(ids=prompt["ids"], pixels=pixels)


def our_settings(options):
    """The settings of npgemma that transformers' options stand for."""
    return {OURS.get(name, name): value for name, value in options.items()}


@functools.cache
def tokenizer():
    """A small tokenizer made as Gemma's is: bytes, spaces, places."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(GOLDEN / "tokens" / "gemma.model", Path(folder) / "tokenizer.model")
        return load_tokenizer(folder)


@functools.cache
def wordy_model(generation="paligemma-2"):
    """A small random model with that tokenizer; its picture has R = 9, P = 4."""
    cfg, words = GENERATIONS[generation], tokenizer()
    text = dataclasses.replace(cfg.text, vocab_size=words.vocab_size, max_positions=512)
    whole = dataclasses.replace(cfg, text=text, image_token_id=words.image, eos_ids=(words.eos,))
    return dataclasses.replace(random_model(whole, "float32"), tokenizer=words, name="wordy")


def saying(*texts, model=None):
    """The wordy model, whose answers are ``texts``, one a row of the batch: its logits favour their tokens by far.

    Every row of a step says its own text; after the last token it says the end of text.
    """
    model = model or wordy_model()
    words = model.tokenizer
    scripts = [[*words.encode(text, "allow"), words.eos] for text in texts]
    told = [0]

    def tell(name, x):
        if name != "text.logits":
            return None
        logits = np.zeros_like(x)
        for row in range(len(x)):
            script = scripts[row % len(scripts)]
            logits[row, -1, script[min(told[0], len(script) - 1)]] = 50.0
        told[0] += 1
        return logits

    return dataclasses.replace(model, weights=model.weights.watched_by(tell))
