"""The gates of a judgement, each a rule with a bound: form, noise (G1), dot product (G2), bits (G3), dual delta (G4).

Form comes first: dtype and shape before values, and a NaN equals nothing.  The method of G2 is that of the conformance
suite of TOSA (its introduction, on floating point), restated in our words.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from npgemma.base import threads

# Bits of the stored fraction, and the smallest normal number, of each type.
FRACTION = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
# A ratio of errors up to the first is what another order of summation makes; above the second lies a fault.
RATIO_EXPECTED, RATIO_ACCEPTABLE = 1.2, 2.0
# Elements that are widened to float64 at a time, and pieces after which memory that was read is handed back.
PIECE, STRETCH = 1 << 18, 16


@dataclass(frozen=True)
class Verdict:
    """What a gate says: whether the tensor passes, in words what is wrong, and the figures it was judged by."""

    gate: str
    passed: bool
    message: str = ""
    figures: dict = field(default_factory=dict)


def form(theirs, shape, kind=None):
    """Hold shape and kind of numbers (``float``, ``integer``, ``boolean``) against what is wanted.

    Returns
    -------
    message : str
        Empty if both fit.
    """
    if kind is not None and kind_of(theirs.dtype) != kind:
        return f"dtype {theirs.dtype}, want {kind} numbers"
    if tuple(theirs.shape) != tuple(shape):
        return f"shape {tuple(theirs.shape)}, want {tuple(shape)}"
    return ""


def kind_of(dtype):
    """``float``, ``integer`` or ``boolean``."""
    return {"f": "float", "b": "boolean"}.get(np.dtype(dtype).kind, "integer")


def specials(theirs, golden):
    """True at each element whose NaN or infinity is not the golden's: a NaN equals nothing, infinities have a sign."""
    special = ~np.isfinite(theirs) | ~np.isfinite(golden)
    return special & ~((theirs == golden) & np.isinf(golden))


def noise(theirs, low, high):
    """G1: each element must be what some correct computation could have stored.

    Parameters
    ----------
    theirs, low, high : (...)
        ``low`` and ``high`` as stored, the least and the greatest that rounding on the way can lead to.
    """
    outside = ~((theirs >= low) & (theirs <= high))
    count = int(np.count_nonzero(outside))
    message = f"{count:,} of {theirs.size:,} elements are what no correct computation stores" if count else ""
    return Verdict("noise", count == 0, message, {"outside": count, "elements": theirs.size})


def bits(theirs, golden, least):
    """G3: the share of elements equal to the last bit, which a recipe of bfloat16 keeps above ``least``."""
    share = float(np.mean(theirs == golden)) if theirs.size else 1.0
    # A share of few elements says nothing: one may always differ.
    passed = share >= least or np.count_nonzero(theirs != golden) <= 1
    message = "" if passed else f"{share:.4%} of bits equal, want {least:.2%}"
    return Verdict("bits", passed, message, {"share": share, "least": least})


def dual_delta(theirs, truth, emulated, floor=0.0, acceptable=RATIO_ACCEPTABLE, real=None, let_go=None):
    """G4: how much farther from float64 their tensor is than a correct one of the same recipe.

    Parameters
    ----------
    theirs, truth, emulated : (...)
    floor : float
        Relative error below which two results are called equal: the recipe may happen to be exact.
    acceptable : float
        Largest ratio that passes.
    real : (...), optional
        True where an element counts.
    let_go : callable, optional
        Hands the memory of what was read so far back to the system.
    """
    error, own, size, equal, count = sums(theirs, truth, emulated, real, let_go)
    yardstick = max(own, floor * size)
    ratio = 0.0 if error == 0.0 else error / yardstick if yardstick else math.inf
    passed = bool(ratio <= acceptable)  # false for a NaN
    message = "" if passed else f"error {ratio:.3g} times the recipe's own, want at most {acceptable:g}"
    figures = {"ratio": ratio, "relative": error / size if size else error, "share": equal / count if count else 1.0}
    return Verdict("dual delta", passed, message, figures)


def alone(theirs, ours, bound, real=None, let_go=None):
    """Hold a whole tensor against one other run, where there is no float64 to say whose error it is.

    Parameters
    ----------
    theirs, ours : (...)
    bound : float
        Largest relative error that passes.
    real, let_go
        As in :func:`dual_delta`.
    """
    error, _, size, equal, count = sums(theirs, ours, ours, real, let_go)
    relative = error / size if size else error
    message = "" if relative <= bound else f"relative error {relative:.3g} between the two runs, want at most {bound:g}"
    return Verdict("two runs", not message, message, {"relative": relative, "share": equal / count if count else 1.0})


def sums(theirs, truth, emulated, real=None, let_go=None):
    """Norms of their error, of the recipe's and of the truth; how many elements equal the emulation, and of how many.

    What is infinite in both does not count; a NaN makes the norms NaN.
    """
    cut, found = cutter(real, theirs, truth, emulated), {}

    def work(piece):
        x, exact, recipe = cut(piece)
        squares = squares_of(x, exact, recipe)
        if not np.all(np.isfinite(squares)):
            known = ~((x == exact) & (x == recipe) & np.isinf(x))
            squares = squares_of(*(each[known] for each in (x, exact, recipe)))
        found[piece.start] = *squares, np.count_nonzero(x == recipe), x.size
        if let_go is not None and piece.stop % (STRETCH * PIECE) == 0:
            let_go()

    threads.share(theirs.size, PIECE, work)
    # In the tensor's order, whichever thread came first: sums depend on it.
    *squares, equal, count = np.sum([found[start] for start in sorted(found)] or np.zeros((1, 5)), axis=0)
    error, own, size = np.sqrt(squares)
    return float(error), float(own), float(size), int(equal), int(count)


def squares_of(x, exact, recipe):
    """Sums of squares of their error, of the recipe's, and of the truth, of flat arrays, in float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        truth = exact.astype(np.float64)
        own = None if recipe is exact else recipe - truth
        error = own if x is recipe else x - truth
        return [0.0 if each is None else float(np.dot(each, each)) for each in (error, own, truth)]


def pieces(real, *arrays):
    """Give arrays of one shape a flat piece at a time, as :func:`cutter` cuts them."""
    cut = cutter(real, *arrays)
    for start in range(0, np.size(arrays[0]), PIECE):
        yield cut(slice(start, start + PIECE))


def cutter(real, *arrays):
    """Give what cuts a flat piece out of arrays of one shape: the elements that are real, all if it is None.

    So no tensor is ever widened whole, nor what is found of its elements.
    """
    flat = [np.asarray(each).reshape(-1) for each in arrays]
    chosen = None if real is None or all_true(real) else np.broadcast_to(real, np.shape(arrays[0])).reshape(-1)
    # One array may be given twice.
    same = [next(n for n, other in enumerate(arrays) if other is each) for each in arrays]

    def cut(piece):
        parts = [each[piece] for each in flat]
        if chosen is not None and not chosen[piece].all():
            parts = [each[chosen[piece]] for each in parts]
        return [parts[n] for n in same]

    return cut


def all_true(real):
    """Whether every element counts; of an array that repeats one value that one is asked."""
    return bool(np.all(real[(0,) * real.ndim] if not any(real.strides) and real.size else real))


@dataclass(frozen=True)
class Product:
    """What the dot-product gate must know of a matrix product beside its result.

    Parameters
    ----------
    length : int
        K, how many products are summed.
    stored, accumulated : str
        Types of the result and of the sum.
    from_float32 : bool
        Whether the factors are float32 numbers, whose products are rounded too.
    bias : bool
        Whether a bias is added.
    one_sided : bool
        Whether the sums of this data lean to one side, so that their errors may lean too.
    """

    length: int
    stored: str = "float32"
    accumulated: str = "float32"
    from_float32: bool = False
    bias: bool = False
    one_sided: bool = False

    @property
    def free(self):
        """Roundings that count: an accumulator with more bits than the result takes the first additions for free."""
        spare = (FRACTION[self.accumulated] - FRACTION[self.stored]) / 2
        return math.ceil(self.length / 2**spare) + (1 if self.bias else 0)


def dot(theirs, exact, magnitude, product):
    """G2: a matrix product against float64, by the size of what was summed.

    Parameters
    ----------
    theirs : (...)
        The accumulator (float32), or what was stored of it.
    exact : (...)
        The product in float64.
    magnitude : (...)
        The product of the factors' sizes, |x| |w|, in float64.
    product : Product

    Notes
    -----
    e = (theirs - exact) / u, u = max(magnitude * 2**(-1 - fraction), smallest).  With k counted roundings and n
    elements: |e| <= 2k (6k for float32 factors); sum of e**2 <= 1.6 k n; and, where sums do not lean to one side,
    |sum of e| <= sqrt(16 k n).  The last two see what stays under the first: partial sums rounded too early.
    """
    unit = np.maximum(magnitude * 2.0 ** (-1 - FRACTION[product.stored]), SMALLEST[product.stored])
    errors = (np.asarray(theirs, dtype=np.float64) - exact) / unit
    errors = np.where(magnitude == 0.0, np.where(theirs == 0.0, 0.0, np.inf), errors).reshape(-1)
    k, n = product.free, errors.size
    hard = 2.0 * k * (3.0 if product.from_float32 else 1.0)
    worst = float(np.max(np.abs(errors), initial=0.0))
    squares, lean = float(np.sum(errors**2)), float(abs(np.sum(errors)))
    figures = {"worst": worst, "limit": hard, "variance": squares / (1.6 * k * n), "bias": lean / math.sqrt(16 * k * n)}
    faults = []
    # Each written so that a NaN fails.
    if not worst <= hard:
        faults.append(f"an error of {worst:.4g} units, want at most {hard:g}")
    if not squares <= 1.6 * k * n:
        faults.append(f"squares of errors sum to {figures['variance']:.3g} times what may be")
    if not product.one_sided and not lean <= math.sqrt(16.0 * k * n):
        faults.append(f"errors lean to one side, {figures['bias']:.3g} times what may be")
    return Verdict("dot product", not faults, "; ".join(faults), figures)
