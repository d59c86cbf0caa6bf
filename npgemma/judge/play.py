"""Playing a port: what it would have written down if it had a fault, every tensor by name."""

import numpy as np

from npgemma.judge.near import Near
from npgemma.judge.rerun import Rerun, Seen, stored_as
from npgemma.judge.rounding import stored
from npgemma.judge.steps import step_of


def play(model, recipe, given, fault=None, num_steps=0, tell=None):
    """Evaluate the whole table under a fault.

    Parameters
    ----------
    model : Model
    recipe : str
    given : mapping of str to array
        The question.
    fault : Fault, optional
    num_steps : int
        How many further tokens are read, each the likeliest behind the one before.
    tell : callable, optional
        ``tell(tensors done, tensors)``, of each call.

    Yields
    ------
    name : str
    tensor : array
        As the recipe stores it.
    """
    played: dict = {}
    rerun = Rerun(model, recipe, given, played, last_only=num_steps > 0)
    yield from call(rerun, fault, played, tell)
    before = [rerun]
    for number in range(num_steps):
        ids = np.argmax(before[-1].theirs["text.logits"][:, -1:], axis=-1)
        mine: dict = {}
        rerun = step_of(model, recipe, before, ids, mine)
        yield from ((f"step.{number}.{name}", tensor) for name, tensor in call(rerun, fault, mine, tell))
        before.append(rerun)


def call(rerun, fault, played, tell):
    """Evaluate one call under a fault; what comes behind a tensor reads what was stored of it."""
    seen = Seen(rerun, rerun.w, fault)
    for number, name in enumerate(rerun.table):
        if tell is not None:
            tell(number, len(rerun.table))
        result = seen.made(name)
        played[name] = stored(result.value, stored_as(name, rerun.recipe)) if isinstance(result, Near) else result
        yield name, played[name]
