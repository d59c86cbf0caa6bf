"""The local variables of a function each time it returns: for what has no public name, inside an equation say."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def locals_of(function: Callable, most: int = 100) -> Iterator[list[dict[str, Any]]]:
    """Collect the locals of a function while the block runs.

    Parameters
    ----------
    function : callable
        One of npgemma's, or any written in Python: ``ops.softmax``.
    most : int
        Only so many calls are kept, the first ones: each holds its arrays in memory.

    Yields
    ------
    calls : list of dict
        One a call, in the order in which they returned: arguments and local variables by name.  The result is
        ``return``.

    Examples
    --------
    >>> with locals_of(ops.softmax) as calls:
    ...     npgemma.forward(model, ids, pixels)
    >>> calls[0]["masked"]

    Notes
    -----
    ``sys.setprofile`` calls back at every call of every Python function, so a run takes a little longer.
    """
    code = function.__code__
    calls: list[dict[str, Any]] = []

    def watch(frame, event, result):
        if event == "return" and frame.f_code is code and len(calls) < most:
            calls.append({**frame.f_locals, "return": result})

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(before)
