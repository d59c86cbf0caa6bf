"""The model beside a port: two runs in lockstep, of the recipe and of float64, one tensor at a time."""

import itertools
from dataclasses import replace

import numpy as np

from npgemma.base import inputs
from npgemma.base.device import to_host
from npgemma.base.tensors import Call
from npgemma.files.image import open_picture, to_rgb
from npgemma.files.image_settings import ImageSettings
from npgemma.judge.rerun import GIVEN, exact_precision, kept_as
from npgemma.tracing.lockstep import Partner
from npgemma.tracing.plan import plan
from npgemma.tracing.precisions import in_precision
from npgemma.tracing.trace import Watch, carry_out


def given_of(question, cfg, sources=()):
    """The question's arrays by name; pictures as (I, R, R, 3), and as ``sources`` before they were resized."""
    found = {"sources": sources} if sources else {}
    found |= {name: getattr(question, name) for name in GIVEN if name != "pixels"}
    pictures = inputs.flat_pictures(question.pixels, question.ids, cfg)
    return found if pictures is None else found | {"pixels": pictures}


def sources_of(model, request):
    """The pictures of a request before they are resized: uint8 (height, width, 3) each."""
    settings, notes = model.image_settings or ImageSettings(), []
    pictures = request.image if isinstance(request.image, list) else [request.image]
    named = [(f"picture {number}", picture) for number, picture in enumerate(pictures) if picture is not None]
    return [
        np.asarray(to_rgb(open_picture(picture, name, settings, notes), name, settings, notes))
        for name, picture in named
    ]


def call_of(question, cfg):
    """The sizes of a question's call."""
    given = given_of(question, cfg)
    B, T = question.ids.shape
    return Call(B, len(given["pixels"]) if "pixels" in given else 0, T)


def run_beside(model, question, recipe, take, tell=None):
    """Call ``take(name, emulated, truth)`` for each tensor of a question, in order of execution.

    ``tell(tensors done, tensors)``, if it is given, is called before each.  The truth is float64 over the weights that
    the recipe has: a bfloat16 port has only those.
    """
    planned = plan(in_precision(model, recipe), question)
    precision = replace(exact_precision(recipe), exact_numbers=True)
    exact = replace(model, weights=replace(model.weights, precision=precision))
    numbers = itertools.count()
    with Partner(replace(planned, model=exact), recipe) as partner:

        def put(name, array):
            if tell is not None:
                tell(next(numbers), len(planned.tensors))
            take(name, array, partner.tensor(name))

        carry_out(planned, Watch(planned, put))


def of_weights(model, recipe):
    """What is done to the weights before anything is computed, in a sentence; empty if nothing is."""
    if kept_as(recipe) != "bfloat16" or all(is_bf16(array) for array in matrices(model)):
        return ""
    return "the weights are wider than bfloat16; they were rounded to it first, for float64 too, as PyTorch loads them"


def matrices(model):
    """The weights with two axes."""
    return (array for array in model.weights.arrays.values() if array.ndim == 2)


def is_bf16(array):
    """Whether the first rows of a matrix hold bfloat16 values."""
    if array.dtype == np.uint16:
        return True
    if array.dtype != np.float32:
        return False
    return not np.any(np.ascontiguousarray(to_host(array[:64])).view(np.uint32) & 0xFFFF)
