"""Local variables of what has no public name."""

import sys

import numpy as np
from random_models import GENERATIONS, random_model

import npgemma
from npgemma import ops
from npgemma.tracing.locals import locals_of

MODEL = random_model(GENERATIONS["paligemma-1"], "float64")


def test_every_call_gives_its_arguments_locals_and_result():
    with locals_of(ops.softmax) as calls:
        npgemma.forward(MODEL, [[2, 5, 6]])
    assert len(calls) == 2  # a decoder of two blocks, no picture
    first = calls[0]
    assert np.array_equal(first["unnormalised"], np.exp(first["x"] - first["x"].max(axis=-1, keepdims=True)))
    sums = first["unnormalised"].sum(axis=-1, keepdims=True)
    assert np.array_equal(first["return"], first["unnormalised"] / sums)


def test_only_the_first_calls_are_held():
    with locals_of(ops.rms_norm, most=3) as calls:
        npgemma.forward(MODEL, [[2, 5, 6]])
    assert len(calls) == 3


def test_the_profiler_is_as_before():
    before = sys.getprofile()
    with locals_of(ops.gelu):
        assert sys.getprofile() is not before
    assert sys.getprofile() is before
