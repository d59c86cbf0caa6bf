"""One tensor of a port judged alone: does its operation, on the port's own inputs, lead to its numbers?"""

from dataclasses import dataclass, field

import numpy as np

from npgemma.judge import diagnose, gates
from npgemma.judge.near import Near
from npgemma.judge.rerun import kept_as, real_elements
from npgemma.judge.rounding import stored

# Relative error between two correct runs of a whole model, where no float64 run says whose it is.
BETWEEN_RUNS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2.0**-4}
# Relative error that is granted where a chain of operations happens to come out exact.
FLOORS = {"float64": 2.0**-50, "float32": 2.0**-21, "bfloat16": 2.0**-9}


@dataclass(frozen=True)
class Single:
    """What is to be said of one operation.

    Parameters
    ----------
    verdict : Verdict
    want : (...)
        What the recipe gives for their inputs.
    real : (...)
        True where an element was judged.
    missing : tuple of str
        Inputs that the port did not write down, and that were made from earlier ones.
    note : str
        How they are right in another way.
    figures : dict
    """

    verdict: gates.Verdict
    want: np.ndarray
    real: np.ndarray
    missing: tuple[str, ...] = ()
    note: str = ""
    figures: dict = field(default_factory=dict)


def judge(rerun, name, theirs):
    """Judge a tensor of the right shape against its operation on their own inputs.

    Parameters
    ----------
    rerun : Rerun
    name : str
    theirs : (...)

    Returns
    -------
    single : Single
    """
    right, missing = rerun.near(name)
    real = real_elements(name, rerun.table[name].letters, theirs.shape, rerun.real)
    want = right.value if isinstance(right, Near) else np.asarray(right)
    made = tuple(each for each in missing if rerun.table[each].row.expression)
    wrong = diagnose.outside(name, right, theirs, real, rerun.recipe)
    share = float(np.mean((theirs == stored_like(want, rerun.recipe))[real])) if real.any() else 1.0
    figures = {"share": share}
    verdict = gates.Verdict("noise", True, "", {})
    if np.any(wrong) and made and isinstance(right, Near):
        verdict = chain(rerun, name, theirs, want, real)
    elif np.any(wrong):
        verdict = gates.Verdict(
            "noise", False, told(name, wrong, real, isinstance(right, Near)), {"outside": int(wrong.sum())}
        )
    note = ""
    if not verdict.passed:
        other = diagnose.variant(rerun, name, theirs, real)
        if other is not None:
            verdict, note = gates.Verdict("noise", True, "", verdict.figures), other.sentence
    return Single(verdict, want, real, made, note, figures | verdict.figures)


def told(name, wrong, real, near):
    """The message of elements out of bounds."""
    count, size = int(np.count_nonzero(wrong)), int(np.count_nonzero(real))
    what = "are what no correct computation stores" if near else "differ"
    return f"{count:,} of {size:,} elements {what}"


def chain(rerun, name, theirs, emulated, real):
    """Judge several operations at once by the dual delta: which roundings lie between, nobody wrote down."""
    return gates.dual_delta(theirs, rerun.truth(name), emulated, FLOORS[kept_as(rerun.recipe)], real=real)


def stored_like(want, recipe):
    """What is wanted, as the recipe stores it."""
    return stored(want, kept_as(recipe)) if want.dtype == np.float64 else want


def place_of(theirs, want, real):
    """The worst judged element: its index, their value and the wanted one."""
    worst, place, start = -1.0, 0, 0
    for x, value, counts in gates.pieces(None, theirs, want, np.broadcast_to(real, theirs.shape)):
        with np.errstate(all="ignore"):
            gap = np.abs(x.astype(np.float64) - value)
        gap = np.where(np.isfinite(gap), gap, np.where(x == value, 0.0, np.inf))
        gap = np.where(counts, gap, -1.0)
        if gap.max(initial=-1.0) > worst:
            worst, place = float(gap.max()), start + int(np.argmax(gap))
        start += x.size
    index = np.unravel_index(place, theirs.shape)
    return tuple(int(i) for i in index), theirs[index].item(), np.asarray(want)[index].item(), worst
