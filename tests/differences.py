"""Derivatives without calculus: the complex step and finite differences, against which gradients are held."""

import dataclasses
import warnings

import numpy as np
from random_models import random_arrays

from npgemma import paligemma, text
from npgemma.base.precision import Precision, unrounded
from npgemma.base.weights import Weights
from npgemma.learn.losses import IGNORED
from npgemma.learn.teaching import Batch, make_batch
from npgemma.paligemma import Model

COMPLEX = Precision("complex", np.complex128, unrounded, unrounded, (np.complex128,))
STEP = 1e-30


def complex_step(function, x, direction):
    """The derivative of ``function`` at x along ``direction``: no subtraction, so no cancellation.

    f(x + ih) = f(x) + ih f'(x) + ...  Squire & Trapp 1998.
    """
    return np.imag(function(x + 1j * STEP * direction)) / STEP


# Steps of a finite difference and what each value counts: the derivative to the sixth order of the step.
NEAR = np.array([1, -1, 2, -2, 3, -3])
COUNTS = np.array([45, -45, -9, 9, 1, -1]) / 60


def central(function, step):
    """The derivative of a function of one number at 0."""
    return np.dot(COUNTS, [function(each * step) for each in NEAR]) / step


def a_batch(cfg, seed=3):
    """Two questions of different length, a picture each, with answers; the shorter row padded."""
    rng = np.random.default_rng(seed)
    P, R = cfg.vision.num_patches, cfg.vision.image_size
    rows = [
        ([cfg.image_token_id] * P + list(rng.integers(3, 39, words)), list(rng.integers(3, 39, answer)))
        for words, answer in ((3, 4), (2, 2))
    ]
    return make_batch(cfg, rows, rng.uniform(-1, 1, size=(2, R, R, 3)))


def complex_model(cfg, arrays):
    """A model that computes in complex numbers, so that one weight may move along the imaginary axis."""
    return Model(cfg, Weights({name: array.astype(np.complex128) for name, array in arrays.items()}, COMPLEX))


def copies_of(batch, number):
    """A batch so many times in one, row after row."""
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return Batch(**{
        name: None if x is None else np.concatenate([x] * number) for name, x in fields.items()
    })


def seen_by(w, cfg, batch):
    """The soft tokens of a batch's pictures."""
    return None if batch.pixels is None else paligemma.see(w, cfg, batch.pixels)


def loss_of(model, batch, observe=None, soft=None):
    """The mean loss of a batch, written anew: float64, or complex for a complex model."""
    return losses_of(model, batch, observe, soft)[0]


def losses_of(model, batch, observe=None, soft=None, copies=1):
    """The mean loss of each of the copies that a batch holds; ``soft`` where the pictures have been seen already."""
    w = model.weights if observe is None else model.weights.watched_by(observe)
    cfg = model.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)  # Positions are real.
        soft = seen_by(w, cfg, batch) if soft is None else soft
        norm, _ = paligemma.read(w, cfg, batch.ids, soft, batch.token_types, batch.attention_mask, batch.positions)
    logits = text.logits(norm, w.at("text"), cfg.text)
    rows = logits[batch.labels != IGNORED]
    labels = batch.labels[batch.labels != IGNORED]
    shifted = rows - rows.real.max(axis=-1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=-1)) - shifted[np.arange(len(rows)), labels]
    return losses.reshape(copies, -1).mean(axis=1)


def wide_arrays(cfg, seed=0):
    return {name: array.astype(np.float64) for name, array in random_arrays(cfg, seed).items()}
