"""Two runs side by side, a tensor at a time: how far one precision is from another, with neither trace kept."""

import queue
import threading
from dataclasses import replace

import numpy as np

from npgemma.base.device import enter
from npgemma.base.errors import InputError
from npgemma.base.weights import EVERYWHERE
from npgemma.tracing.plan import Plan
from npgemma.tracing.precisions import in_precision
from npgemma.tracing.trace import Stopped, Watch, carry_out


class Partner:
    """The same run in another precision, in a thread of its own that is never more than two tensors ahead.

    Use it as a context manager, and ask it for each tensor of the plan in order.

    Parameters
    ----------
    planned : Plan
        Of one forward pass; its observer stays out of the partner's run.
    precision : str
    """

    def __init__(self, planned: Plan, precision: str) -> None:
        if planned.max_new_tokens:
            raise InputError("against: two precisions may choose different tokens; compare one forward pass")
        self.planned = replace(planned, model=in_precision(planned.model, precision), observe=None)
        self.ready: queue.Queue = queue.Queue(maxsize=1)
        self.closed = False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """The thread's work; whatever ends it is told to who waits for a tensor."""
        enter(self.planned.model.weights[EVERYWHERE])
        try:
            carry_out(self.planned, Watch(self.planned, self.put))
        except BaseException as problem:
            self.ready.put(("", problem))

    def put(self, name: str, array: np.ndarray) -> None:
        if self.closed:
            raise Stopped
        self.ready.put((name, array))

    def tensor(self, name: str) -> np.ndarray:
        """Wait for the next tensor, which must be the one called ``name``."""
        found, array = self.ready.get()
        if isinstance(array, BaseException):
            raise array
        if found != name:
            raise LookupError(f"the partner has come to {found}, this run to {name}")
        return array

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closed = True
        while self.thread.is_alive():
            try:
                self.ready.get(timeout=0.05)
            except queue.Empty:
                continue
        self.thread.join()


def distance(x: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """How far an array is from another.

    Returns
    -------
    relative : float
        Norm of the difference over the norm of ``exact``.
    largest : float
        Largest difference of two values.
    """
    gap = x.astype(np.float64) - exact
    norm = float(np.linalg.norm(exact.astype(np.float64)))
    relative = float(np.linalg.norm(gap))
    return relative / norm if norm else relative, float(np.max(np.abs(gap), initial=0.0))
