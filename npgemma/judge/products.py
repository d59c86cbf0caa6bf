"""The matrix products in rows: their accumulators in exact arithmetic, and the size of what they sum."""

import ast
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from npgemma.base.expressions import chosen, full_name, multiplied
from npgemma.base.tensors import in_numbers, schema, sizes_by_tower, tensors, tower_of
from npgemma.judge.rerun import PLAIN
from npgemma.tracing.evaluate import evaluate


def product_of(name, tensor, cfg, call):
    """The matrix product in a row's expression, as an expression; empty if there is none."""
    if not tensor.row.expression:
        return ""
    for node in ast.walk(chosen(tensor.row.expression, name, cfg, call)):
        is_linear = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "linear"
        if is_linear or isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return ast.unparse(node)
    return ""


class Sizes(Mapping):
    """The absolute values of the arrays of a mapping."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __getitem__(self, name):
        array = np.asarray(self.arrays[name])
        return np.abs(array) if array.dtype.kind == "f" else array

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)


class Wide(Mapping):
    """The arrays of a mapping in float64."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __getitem__(self, name):
        array = np.asarray(self.arrays[name])
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)


def accumulator(name, expression, seen, exact, cfg, call):
    """The product in float64, and |x| |w|, on the tensors ``seen``; ``exact`` are weights read in float64."""
    sizes = replace(exact, arrays=Sizes(Wide16(exact)))
    value = evaluate(name, Wide(seen), exact, cfg, call, (), expression, PLAIN)
    return value, evaluate(name, Sizes(Wide(seen)), sizes, cfg, call, (), expression, PLAIN)


class Wide16(Mapping):
    """The weights as float64 arrays, whatever they are stored in."""

    def __init__(self, weights):
        self.weights = weights

    def __getitem__(self, name):
        return self.weights[name]

    def __iter__(self):
        return iter(self.weights.arrays)

    def __len__(self):
        return len(self.weights.arrays)


def length_of(name, tensor, cfg, call):
    """K: how many terms each sum of a row's product has."""
    table = tensors(cfg, call.batch, call.pictures, call.length, call.past, call.last_only)
    parameters = schema(cfg)
    [first, *_] = multiplied(name, tensor.row.expression, cfg, call)
    full = full_name(first, name, {**table, **parameters})
    known = sizes_by_tower(cfg, call)[tower_of(name)]
    return parameters[full].shape[-1] if full in parameters else in_numbers(table[full].letters, known)[-1]
