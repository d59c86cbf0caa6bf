"""The model beside a port: two runs in lockstep, of the recipe and of float64, one tensor at a time."""

import itertools
from dataclasses import replace

from npgemma.base import inputs
from npgemma.base.tensors import Call
from npgemma.judge.rerun import GIVEN
from npgemma.tracing.lockstep import Partner
from npgemma.tracing.plan import plan
from npgemma.tracing.precisions import in_precision
from npgemma.tracing.trace import Watch, carry_out


def given_of(question, cfg):
    """The question's arrays by name; pictures as (I, R, R, 3)."""
    found = {name: getattr(question, name) for name in GIVEN if name != "pixels"}
    pictures = inputs.flat_pictures(question.pixels, question.ids, cfg)
    return found if pictures is None else found | {"pixels": pictures}


def call_of(question, cfg):
    """The sizes of a question's call."""
    given = given_of(question, cfg)
    B, T = question.ids.shape
    return Call(B, len(given["pixels"]) if "pixels" in given else 0, T)


def run_beside(model, question, recipe, take, tell=None):
    """Call ``take(name, emulated, truth)`` for each tensor of a question, in order of execution.

    ``tell(tensors done, tensors)``, if it is given, is called before each.
    """
    planned = plan(in_precision(model, recipe), question)
    numbers = itertools.count()
    with Partner(replace(planned), "float64") as partner:

        def put(name, array):
            if tell is not None:
                tell(next(numbers), len(planned.tensors))
            take(name, array, partner.tensor(name))

        carry_out(planned, Watch(planned, put))
