"""One operation of a port again: a row of the table, evaluated on the port's own tensors, with the bounds of noise.

So each operation is judged alone, whatever happened before it.  What the port did not write down is made from what it
did: a row's input is theirs if they have it, else given with the question, else another row evaluated likewise.
"""

import copy
import functools
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace

import numpy as np

from npgemma.base import half
from npgemma.base.device import Fetched
from npgemma.base.precision import PRECISIONS, Precision, unrounded
from npgemma.base.tensors import Call, tensors
from npgemma.base.weights import Weights
from npgemma.judge.near import UNITS, Near, linear, rounded
from npgemma.judge.rounding import stored
from npgemma.tracing.evaluate import EQUATIONS, SHOWN, evaluate

PLAIN = EQUATIONS | {"linear": linear}
GIVEN = ("pixels", "ids", "token_types", "attention_mask", "positions")
# A float32 angle: the frequency, its inverse and the product are each rounded.
ANGLE_ROUNDINGS = 3.0
# What float32 may lose whole: numbers below the smallest normal one, and a little above it, where exp overflows first.
FLUSHED = 2.0**-120


@dataclass(frozen=True)
class NearPrecision(Precision):
    """A recipe in exact arithmetic whose roundings know the noise; constants are those of the recipe itself."""

    recipe: Precision = PRECISIONS["float64"]
    exact_numbers: bool = False

    def weight(self, array):
        """A weight as the recipe has it, in float64."""
        own = unrounded if self.recipe.dtype is np.float64 else self.recipe.weight
        wide = half.Wide(array, own)
        return wide if half.is_large(array) else wide[...]

    def number(self, value):
        """The constant as the recipe stores it, or as it is."""
        return float(value) if self.exact_numbers else self.recipe.number(value)


def near_precision(recipe):
    """The recipe called so, for arrays of :class:`Near`."""
    own = PRECISIONS[recipe]
    store, inner = (unrounded if each is unrounded else rounded for each in (own.store, own.inner))
    return NearPrecision(recipe, np.float64, store, inner, (), own)


def exact_precision(recipe):
    """Float64 where nothing is rounded, over the weights of the recipe called so."""
    return NearPrecision(recipe, np.float64, unrounded, unrounded, (), PRECISIONS[recipe])


def unit_of(recipe):
    """The relative error of one rounding inside the equations of a recipe."""
    return UNITS["float64" if recipe == "float64" else "float32"]


def kept_as(recipe):
    """The type of number that a recipe stores: ``float64``, ``float32`` or ``bfloat16``."""
    return "bfloat16" if recipe.startswith("bf16") else recipe


class Rerun:
    """Makes tensors again, from those of a port and the weights of the model.

    Parameters
    ----------
    model : Model
    recipe : str
    given : mapping of str to array
        The question: ``ids token_types attention_mask positions`` and, where there are pictures, ``pixels``.
    theirs : mapping of str to array
        The port's tensors, by npgemma's names and in its axes; read when they are needed.
    before : sequence of Rerun
        The calls before a step, whose keys and values it reads.
    last_only : bool
        Whether logits are those of each row's last token only.
    """

    def __init__(self, model, recipe, given, theirs, before=(), last_only=False):
        self.cfg, self.recipe, self.unit = model.config, recipe, unit_of(recipe)
        arrays = Fetched(model.weights.arrays)
        self.w = Weights(arrays, near_precision(recipe))
        self.exact = Weights(arrays, exact_precision(recipe))
        self.given, self.theirs, self.before = given, theirs, before
        pictures = len(given["pixels"]) if "pixels" in given else 0
        B, T = given["ids"].shape
        self.call = Call(B, pictures, T, sum(each.call.length for each in before), last_only)
        self.table = tensors(self.cfg, *astuple(self.call))
        # 1 for each real token so far, the S of this call.
        self.real = np.concatenate([each.given["attention_mask"] for each in (*before, self)], axis=1)

    @functools.cached_property
    def remembered(self):
        """What a later step reads of this call: in float64, and with its noise."""
        return Seen(self, self.exact, None), Seen(self, self.w, None)

    def near(self, name, fault=None, known=None):
        """Make ``name`` as the recipe does, with its noise; gives it, and what the port left out.

        ``known`` may hold what was made for the same tensor without a fault; what comes before the fault stays.
        """
        seen = Seen(self, self.w, fault)
        if known:
            order = list(self.table)
            first = min(order.index(each) for each in known if self.table[each].row.name in fault.changes)
            seen.cache = {each: array for each, array in known.items() if order.index(each) < first}
        return seen.made(name), seen.missing

    def made_of(self, name):
        """What was made or read on the way to ``name``, by name, itself among it."""
        seen = Seen(self, self.w, None)
        return {name: seen.made(name)} | seen.cache

    def rounding_otherwise(self):
        """The same, with the steps inside equations rounded where the recipe does not, and not where it does."""
        other = copy.copy(self)
        inner = unrounded if self.w.precision.inner is rounded else rounded
        other.w = replace(self.w, precision=replace(self.w.precision, inner=inner))
        return other

    def truth(self, name):
        """Make ``name`` in float64 from the same tensors, nothing rounded."""
        return Seen(self, self.exact, None).made(name)


class Seen(Mapping):
    """The tensors that one operation reads: the port's, the question's, or made now.

    Parameters
    ----------
    rerun : Rerun
    w : Weights
        In whose precision missing tensors are made.
    fault : Fault or None
    """

    def __init__(self, rerun, w, fault):
        self.rerun, self.w, self.fault = rerun, w, fault
        self.cache, self.missing = {}, []
        # What is remembered of the calls before is theirs, or right.
        self.before = [each.remembered[w is rerun.w] for each in rerun.before]

    def __getitem__(self, name):
        if name not in self.cache:
            self.cache[name] = self.read(name)
        return self.cache[name]

    def read(self, name):
        """Look where a tensor is to be had."""
        if name in self.rerun.theirs:
            return self.near(np.asarray(self.rerun.theirs[name]))
        self.missing.append(name)
        return self.made(name)

    def near(self, array, noise=0.0):
        """A known array: exact numbers, where the noise is reckoned."""
        if array.dtype.kind != "f":
            return array
        wide = array.astype(np.float64)
        return Near(wide, noise, self.rerun.unit) if self.w is self.rerun.w else wide

    def made(self, name):
        """Evaluate a row on these tensors, under the fault if there is one."""
        rerun, row = self.rerun, self.rerun.table[name].row
        expression, equations = row.expression, {}
        if self.fault is not None and row.name in self.fault.changes:
            expression, equations = self.fault.changes[row.name] or row.expression, self.fault.equations
        seen = Turning(self) if name in SHOWN and self.w is rerun.w else self
        if name in GIVEN:
            seen = {name: self.given_as(name)}
            if not expression:
                return self.w.precision.store(seen[name]) if name == "pixels" else seen[name]
        with np.errstate(all="ignore"):
            equations = PLAIN | {"sources": lambda: rerun.given["sources"]} | equations
            known = (rerun.cfg, rerun.call, self.before)
            result = evaluate(name, seen, self.w, *known, expression, equations, rerun.table)
        return self.as_near(name, result)

    def given_as(self, name):
        """What the question gives; a pixel is a byte scaled and shifted, in one order of roundings or another."""
        array = np.asarray(self.rerun.given[name])
        return self.near(array, 3.0 * self.rerun.unit if name == "pixels" else 0.0)

    def as_near(self, name, result):
        """What an equation makes without any noise (a row of a table times a number) is rounded once, if at all."""
        if isinstance(result, Near) or self.w is not self.rerun.w or self.rerun.table[name].kind != "float":
            return result
        wide = np.asarray(result, dtype=np.float64)
        once = 0.0 if kept_as(self.rerun.recipe) == "bfloat16" else np.abs(wide) * self.rerun.unit
        return Near(wide, once, self.rerun.unit)

    def __iter__(self):
        return iter(self.rerun.table)

    def __len__(self):
        return len(self.rerun.table)


class Turning(Mapping):
    """The same tensors with positions as uncertain as a float32 angle is."""

    def __init__(self, seen):
        self.seen = seen

    def __getitem__(self, name):
        array = self.seen[name]
        if name != "positions":
            return array
        wide = array.astype(np.float64)
        return Near(wide, np.abs(wide) * ANGLE_ROUNDINGS * self.seen.rerun.unit, self.seen.rerun.unit)

    def __iter__(self):
        return iter(self.seen)

    def __len__(self):
        return len(self.seen)


def bounds(name, near, recipe):
    """The least and greatest stored value of a tensor that a correct computation may give.

    Parameters
    ----------
    name : str
    near : Near
        As the recipe keeps it: rounded to bfloat16 already, where it is.
    recipe : str
    """
    slack = near.noise + (0.0 if recipe == "float64" else FLUSHED)
    low, high = near.value - slack, near.value + slack
    if stored_as(name, recipe) == "float32":
        return stored(low, "float32"), stored(high, "float32")
    return low, high


def stored_as(name, recipe):
    """The type that a tensor is stored in: that of the recipe, but for angles that it leaves in float32."""
    unrounded_angles = name in SHOWN and PRECISIONS[recipe].inner is unrounded and recipe != "float64"
    return "float32" if unrounded_angles else kept_as(recipe)


def real_elements(name, letters, shape, attention_mask):
    """True for each element that belongs to real tokens: what padding computes is nobody's business.

    Parameters
    ----------
    name : str
    letters : str
        Axes of the tensor, ``B K G T S``.
    shape : tuple of int
    attention_mask : (B, S)
        1 for real tokens.
    """
    real, axes = attention_mask != 0, letters.split()
    found = np.broadcast_to(True, shape)
    if real.all():
        return found
    # Whether a real query looks at padding is somebody's business.
    for letter in ("T",) if name.startswith("mask.") or name.endswith(".probs") else ("T", "S"):
        if letter in axes:
            size = shape[axes.index(letter)]
            part = real[:, -size:] if letter == "T" else real[:, :size]
            form = [shape[0] if axis == "B" else size if axis == letter else 1 for axis in axes]
            found = found & part.reshape(form)
    return found
