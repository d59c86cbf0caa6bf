"""Playing a port: what it would have written down if it had a fault, every tensor by name."""

import numpy as np

from npgemma.judge.near import Near
from npgemma.judge.rerun import Rerun, Seen, stored_as
from npgemma.judge.rounding import stored


def play(model, recipe, given, fault=None, tell=None):
    """Evaluate the whole table under a fault.

    Parameters
    ----------
    model : Model
    recipe : str
    given : mapping of str to array
        The question.
    fault : Fault, optional
    tell : callable, optional
        ``tell(tensors done, tensors)``

    Yields
    ------
    name : str
    tensor : array
        As the recipe stores it.
    """
    rerun = Rerun(model, recipe, given, {})
    seen = Seen(rerun, rerun.w, fault)
    for number, name in enumerate(rerun.table):
        if tell is not None:
            tell(number, len(rerun.table))
        result = seen[name]
        if isinstance(result, Near):
            kept = stored(result.value, stored_as(name, recipe))
            # What comes behind reads what was stored, not what it was rounded from.
            seen.cache[name] = Near(kept.astype(np.float64), 0.0, rerun.unit)
            yield name, kept
        else:
            yield name, result
