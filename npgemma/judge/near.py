"""Numbers that know how wrong they may be: the model's own equations, evaluated on them, give a judge its bounds.

A :class:`Near` holds what exact arithmetic gives, and how far a correct computation may be from it, element by element,
whatever its order of sums.  It is a duck array: NumPy's dispatch protocols (NEP 13, NEP 18) bring each step of an
equation here, so that no bound is written by hand.  A running error analysis (Wilkinson 1986; Higham 2002, sec. 3.3).
"""

import math

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from npgemma.base import half
from npgemma.judge.rounding import to_bf16

# Half the distance from 1 to the next number.  In float64 the judge's own arithmetic errs as much as theirs.
UNITS = {"float64": 2.0**-52, "float32": 2.0**-24}
# Of a matrix that is widened by rows.
ROWS_OF_BLOCK = 4096
# What rounding of exp, tanh, sin and cos is granted, in units: no library of today is worse than 4.
TRANSCENDENTAL = 4.0


class Near(NDArrayOperatorsMixin):
    """An array of exact values and of how far a correct computation may be from each.

    Parameters
    ----------
    value : (...)
        float64.
    noise : (...) or float
        Of the same shape; 0 where a number is exactly known.
    unit : float
        Relative error of one rounding.
    """

    def __init__(self, value, noise=0.0, unit=UNITS["float32"]):
        self.value = value
        # Zero times infinity: what is exactly zero stays so whatever it is multiplied by.
        known = np.asarray(noise)
        known = known if known.ndim == 0 or not np.isnan(known).any() else np.where(np.isnan(known), 0.0, known)
        self.noise = np.broadcast_to(known, np.shape(value))
        self.unit = unit

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    T = property(lambda self: self.moved(np.transpose))
    mT = property(lambda self: self.swapaxes(-1, -2))

    def __len__(self):
        return len(self.value)

    def moved(self, function, *args):
        """Do to value and noise what changes no number: a reshape, a slice."""
        return Near(function(self.value, *args), function(self.noise, *args), self.unit)

    def __getitem__(self, index):
        return self.moved(lambda array: array[index])

    def __setitem__(self, index, other):
        value, noise = parts(other, self.unit)
        self.noise = np.array(self.noise)
        self.value[index], self.noise[index] = value, noise

    def reshape(self, *shape):
        return self.moved(lambda array: array.reshape(*shape))

    def transpose(self, *axes):
        return self.moved(lambda array: array.transpose(*axes))

    def swapaxes(self, first, second):
        return self.moved(np.swapaxes, first, second)

    def astype(self, dtype, copy=True):
        return self  # its floats are float64, whatever stands for them

    def copy(self):
        return self.moved(np.copy)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if ufunc in COMPARISONS and method == "__call__":
            return ufunc(*(x.value if isinstance(x, Near) else x for x in inputs), **kwargs)
        if ufunc not in STEPS or method != "__call__" or kwargs:
            return NotImplemented
        unit = max(x.unit for x in inputs if isinstance(x, Near))
        with np.errstate(all="ignore"):
            return Near(*STEPS[ufunc](*(part for x in inputs for part in parts(x, unit)), unit), unit)

    def __array_function__(self, function, types, args, kwargs):
        if function not in FUNCTIONS:
            return NotImplemented
        return FUNCTIONS[function](*args, **kwargs)


def parts(x, unit):
    """Value and noise of an operand; a Python number that the float type cannot hold is itself rounded."""
    if isinstance(x, Near):
        return x.value, x.noise
    if isinstance(x, int | float):
        exact = unit < UNITS["float32"] or not math.isfinite(x) or float(np.float32(x)) == x
        return float(x), 0.0 if exact else abs(x) * unit
    if not isinstance(x, np.ndarray | np.generic):
        raise TypeError(f"{x!r:.40} is no number")
    return x.astype(np.float64), 0.0


def near_of(x):
    """The unit of the first Near among some arrays."""
    return next(each.unit for each in x if isinstance(each, Near))


# ---- steps: (value, noise) of each operand and the unit in, (value, noise) out ----


def once(value, inherited, unit):
    """The noise of one rounding of ``value``, which loses nothing where float32 holds it and its operands are known."""
    lost = unit * np.abs(value)
    if unit == UNITS["float32"]:
        lost = np.where((inherited == 0.0) & (value.astype(np.float32) == value), 0.0, lost)
    return value, inherited + lost


def add(a, da, b, db, unit):
    """a + b."""
    return once(a + b, da + db, unit)


def subtract(a, da, b, db, unit):
    """a - b."""
    return add(a, da, -b, db, unit)


def multiply(a, da, b, db, unit):
    """a b."""
    return once(a * b, np.abs(a) * db + np.abs(b) * da + da * db, unit)


def divide(a, da, b, db, unit):
    """a / b."""
    value = a / b
    return value, (da + np.abs(value) * db) / np.maximum(np.abs(b) - db, 0.0) + unit * np.abs(value)


def square(a, da, unit):
    """a squared."""
    return multiply(a, da, a, da, unit)


def sqrt(a, da, unit):
    """The root of a."""
    value = np.sqrt(a)
    return value, np.minimum(da / value, np.sqrt(da)) + unit * value


def exp(a, da, unit):
    """exp(a)."""
    value = np.exp(a)
    return value, value * np.expm1(da) + TRANSCENDENTAL * unit * value


def tanh(a, da, unit):
    """tanh(a), which is steepest where the noise begins or ends."""
    value = np.tanh(a)
    reach = np.maximum(np.tanh(a + da) - value, value - np.tanh(a - da))
    return value, reach + TRANSCENDENTAL * unit * np.abs(value)


def cosine(a, da, unit):
    """cos(a)."""
    return np.cos(a), da + TRANSCENDENTAL * unit


def sine(a, da, unit):
    """sin(a)."""
    return np.sin(a), da + TRANSCENDENTAL * unit


def negative(a, da, unit):
    """-a, which loses nothing."""
    return -a, da


def power(a, da, b, db, unit):
    """a to the power of b."""
    value = a**b
    return value, np.abs(b * value / a) * da + TRANSCENDENTAL * unit * np.abs(value)


def growth(length):
    """Units that a sum of so many terms may lose, of the sum of their sizes.

    A worst case would be ``length``; errors that are not all alike grow with its root (Higham & Mary 2019).  The factor
    is for small terms of like size onto a large one, whose errors are somewhat alike: there a loop loses 1.3 roots.
    """
    return min(length, 4.0 + 2.0 * math.sqrt(length))


def product(multiplied, a, da, b, db, length, unit):
    """A matrix product by ``multiplied(a, b)`` over ``length`` terms."""
    value, size = multiplied(a, b), multiplied(np.abs(a), np.abs(b))
    noise = growth(length) * unit * size
    if np.any(da):
        noise = noise + multiplied(da, np.abs(b))
    if np.any(db):
        noise = noise + multiplied(np.abs(a), np.broadcast_to(db, b.shape))
    return value, noise


def matmul(a, da, b, db, unit):
    """a @ b."""
    return product(np.matmul, a, da, b, db, a.shape[-1], unit)


STEPS = {
    np.add: add,
    np.subtract: subtract,
    np.multiply: multiply,
    np.divide: divide,
    np.square: square,
    np.sqrt: sqrt,
    np.exp: exp,
    np.tanh: tanh,
    np.cos: cosine,
    np.sin: sine,
    np.negative: negative,
    np.power: power,
    np.matmul: matmul,
}
COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isnan, np.isfinite}


# ---- functions ----


def total(x, axis=None, keepdims=False, **_):
    """np.sum."""
    length = x.size if axis is None else x.shape[axis]
    sums = [np.sum(part, axis=axis, keepdims=keepdims) for part in (x.value, x.noise, np.abs(x.value))]
    return Near(sums[0], sums[1] + growth(length) * x.unit * sums[2], x.unit)


def mean(x, axis=None, keepdims=False):
    """np.mean."""
    length = x.size if axis is None else x.shape[axis]
    return total(x, axis, keepdims) * (1.0 / length)


def largest(x, axis=None, keepdims=False):
    """np.max: as wrong as the most wrong of those that might be it; on their own difference no noise is lost."""
    return Near(np.max(x.value, axis=axis, keepdims=keepdims), np.max(x.noise, axis=axis, keepdims=keepdims), x.unit)


def einsum(spec, a, b, optimize=True):
    """np.einsum of two operands."""
    unit = near_of((a, b))
    inputs, output = spec.split("->")
    (value_a, da), (value_b, db) = parts(a, unit), parts(b, unit)
    sizes = dict(zip(inputs.replace(",", ""), (*a.shape, *b.shape), strict=True))
    length = math.prod(size for letter, size in sizes.items() if letter not in output)

    def multiplied(left, right):
        return np.einsum(spec, left, right, optimize=True)

    return Near(*product(multiplied, value_a, da, value_b, db, length, unit), unit)


def where(mask, a, b):
    """np.where, by a mask that is known."""
    unit = near_of((a, b))
    (value_a, da), (value_b, db) = parts(a, unit), parts(b, unit)
    return Near(np.where(mask, value_a, value_b), np.where(mask, da, db), unit)


def joined(function):
    """np.concatenate or np.stack of a list."""

    def join(arrays, axis=0):
        unit = near_of(arrays)
        pairs = [parts(each, unit) for each in arrays]
        noises = [np.broadcast_to(noise, value.shape) for value, noise in pairs]
        return Near(function([value for value, _ in pairs], axis=axis), function(noises, axis=axis), unit)

    return join


def split(x, pieces, axis=0):
    """np.split."""
    values, noises = np.split(x.value, pieces, axis=axis), np.split(x.noise, pieces, axis=axis)
    return [Near(value, noise, x.unit) for value, noise in zip(values, noises, strict=True)]


def rearranged(function):
    """A function of NumPy that only moves numbers."""
    return lambda x, *args, **kwargs: x.moved(lambda array: function(array, *args, **kwargs))


def like(function):
    """np.empty_like and its kin: exact numbers of the given shape."""
    return lambda x, **_: Near(np.zeros(x.shape) if function is np.empty_like else function(x.value), 0.0, x.unit)


FUNCTIONS = {
    np.sum: total, np.mean: mean, np.max: largest, np.einsum: einsum, np.where: where, np.split: split,
    np.concatenate: joined(np.concatenate), np.stack: joined(np.stack), np.arange: np.arange,
    **{
        each: rearranged(each)
        for each in (np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.flip, np.roll, np.repeat, np.take,
                     np.take_along_axis, np.broadcast_to, np.expand_dims, np.squeeze, np.copy)
    },
    **{each: like(each) for each in (np.empty_like, np.zeros_like, np.ones_like)},
}  # fmt: skip


# ---- equations that go other ways on plain arrays, and roundings ----


def linear(x, weight, bias=None):
    """``ops.linear`` without its speed, on arrays of any kind: x (..., D), weight (F, D) -> (..., F)."""
    if isinstance(weight, half.Wide):
        pieces = [slice(start, start + ROWS_OF_BLOCK) for start in range(0, len(weight.array), ROWS_OF_BLOCK)]
        done = [linear(x, weight[rows], None if bias is None else bias[rows]) for rows in pieces]
        return np.concatenate(done, axis=-1)
    product = x @ weight.T
    return product if bias is None else product + bias


def rounded(x):
    """Round to bfloat16, as a recipe does inside or when it stores; where the noise crosses a tie, either may come."""
    if not isinstance(x, Near):
        return to_bf16(x) if x.dtype == np.float64 else to_bf16(np.asarray(x, dtype=np.float32))
    value, low, high = (to_bf16(each).astype(np.float64) for each in (x.value, x.value - x.noise, x.value + x.noise))
    return Near(value, np.fmax(high - value, value - low), x.unit)
