"""What a wrong tensor looks like: which known fault makes the port's own numbers from the port's own inputs.

Nothing is guessed.  A fault is named only where it leads to every judged element of theirs, within bounds narrow enough
to tell it from what is right; where several do, all are named; where none does, the answer is that it is unknown.
"""

from dataclasses import dataclass

import numpy as np

from npgemma.judge.fault_list import FAULTS, VARIANTS
from npgemma.judge.near import Near
from npgemma.judge.rerun import bounds
from npgemma.judge.symptoms import given_wrongly, symptoms

# The share of wrong elements that a fault must explain by more than noise: rounding hides most of a soft sky's resize.
EXPLAINED = 0.2
# What a fault of another shape, or one that the model cannot have, may raise when it is tried.
NOT_POSSIBLE = (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError)


@dataclass(frozen=True)
class Cause:
    """A fault that leads to their numbers: its name, and the sentence that explains it."""

    name: str
    sentence: str


def outside(name, near, theirs, real, recipe):
    """True at each judged element that no correct computation of ``near`` stores."""
    if not isinstance(near, Near):
        return (near != theirs) & real
    low, high = bounds(name, near, recipe)
    return ~((theirs >= low) & (theirs <= high)) & real


def variant(rerun, name, theirs, real):
    """The other way to be right that leads to their numbers, if there is one."""
    found = fitting(rerun, name, theirs, real, VARIANTS.values(), [])
    return next((Cause(fault.name, fault.sentence) for fault, _ in found), None)


def causes(rerun, name, theirs, real):
    """Name what is wrong with a tensor.

    Parameters
    ----------
    rerun : Rerun
    name : str
    theirs : (...)
    real : (...)
        True where an element is judged.

    Returns
    -------
    causes : list of Cause
        Empty where it is unknown.
    """
    right, missing = rerun.near(name)
    wrong = outside(name, right, theirs, real, rerun.recipe)
    known = rerun.made_of(name) if missing else {}
    found = accepted(rerun, name, theirs, real, missing, right, wrong, known)
    if not found and not missing and rerun.recipe.startswith("bf16"):
        # Who makes one of these mistakes may also round elsewhere inside the operation.
        found = accepted(rerun.rounding_otherwise(), name, theirs, real, missing, right, wrong, {})
    if found or not isinstance(right, Near):
        return found
    return [Cause(*symptom) for symptom in symptoms(rerun, name, right, theirs, real)]


def of_given(name, theirs, want, real):
    """What is wrong with integers that a port was to be given; empty where it is unknown."""
    return [Cause(*symptom) for symptom in given_wrongly(name, theirs, want, real)]


def accepted(rerun, name, theirs, real, missing, right, wrong, known):
    """The faults that fit, and tell what is wrong from what is right."""
    fits = fitting(rerun, name, theirs, real, FAULTS.values(), missing, known)
    return [Cause(fault.name, fault.sentence) for fault, near in fits if tells_apart(near, right, wrong)]


def fitting(rerun, name, theirs, real, faults, missing, known=()):
    """Those of some faults that lead to their numbers, each with what it makes."""
    places = {rerun.table[each].row.name for each in (name, *missing)}
    for fault in faults:
        if not places & set(fault.changes):
            continue
        try:
            near, _ = rerun.near(name, fault, known)
            fits = near.shape == theirs.shape and not np.any(outside(name, near, theirs, real, rerun.recipe))
        except NOT_POSSIBLE:
            continue
        if fits:
            yield fault, near


def tells_apart(near, right, wrong):
    """Whether a fault, which fits all elements, explains enough of the wrong ones by more than its own noise."""
    if not isinstance(near, Near) or not isinstance(right, Near):
        return True
    explained = np.abs(near.value - right.value) > near.noise
    return bool(np.mean(explained[wrong]) >= EXPLAINED)
