"""Ports of the tiny goldens' models, right and wrong, for the tests of the judge."""

import functools

import numpy as np

import golden
from npgemma.judge.fault_list import FAULTS
from npgemma.judge.near import Near
from npgemma.judge.play import play
from npgemma.judge.rerun import Rerun, Seen, stored_as
from npgemma.judge.rounding import stored
from npgemma.judge.single import judge

RECIPES = ("float64", "float32", "bf16-hf-eager", "bf16-f32-inside")


def question(model):
    """The arrays of the batch that is recorded whole: two rows, padding, a suffix, pictures (I, R, R, 3)."""
    inputs = golden.trace_case(model, "float64").inputs
    return {name: array if name != "pixels" else array.transpose(0, 2, 3, 1) for name, array in inputs.items()}


@functools.cache
def right(model, recipe):
    """A port without a fault: every tensor by name."""
    return dict(play(golden.model(model, recipe), recipe, question(model)))


def rerun(model, recipe, tensors):
    """The judge of single operations, on these tensors."""
    return Rerun(golden.model(model, recipe), recipe, question(model), tensors)


def first_wrong(model, recipe, tensors):
    """The first tensor whose operation alone fails: its name, the judge of it, and what it found."""
    again = rerun(model, recipe, tensors)
    for name, tensor in again.table.items():
        if name not in tensors:
            continue
        if not tensor.row.expression and name != "pixels":
            if not np.array_equal(tensors[name], again.given[name]):
                return name, again, None
            continue
        found = judge(again, name, tensors[name])
        if not found.verdict.passed:
            return name, again, found
    return None, again, None


def with_fault(model, recipe, fault):
    """The first tensor that a fault changes, and the port's tensors up to it; None if it changes none.

    What comes before is right, and what comes behind is nobody's business here.
    """
    tensors = dict(right(model, recipe))
    again = rerun(model, recipe, tensors)
    for name, tensor in again.table.items():
        if tensor.row.name not in fault.changes:
            continue
        near = Seen(again, again.w, fault).made(name)
        made = stored(near.value, stored_as(name, recipe)) if isinstance(near, Near) else near
        if not np.array_equal(made, tensors[name], equal_nan=True):
            return name, tensors | {name: made}
    return None, tensors


def faults_by_name():
    """All faults."""
    return FAULTS
