"""Stopping a run at a tensor, in a debugger, in the frame of the layer that has just computed it.

An observer may be called from deep below the layer; what a user wants to see is ``q``, ``k``, ``scores`` as locals.
"""

import pdb
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import numpy as np

from npgemma.backward.tape import Tape
from npgemma.base import printer
from npgemma.base.describe import describe
from npgemma.base.device import to_host
from npgemma.base.weights import Weights
from npgemma.paligemma import Model
from npgemma.show.lens import lens
from npgemma.show.mask_art import draw_mask
from npgemma.tracing.selection import as_patterns, matches

KEEPING = (Weights.keep.__code__, Weights.show.__code__, Tape.keep.__code__)


def break_on(
    only: str | Iterable[str],
    when: Callable[[Any], Any] | None = None,
    then: Callable[[str, Any], Any] | None = None,
) -> Callable[[str, Any], Any]:
    """Give an observer that opens the debugger at some tensors.

    Parameters
    ----------
    only : str or iterable of str
        Patterns, ``text.blocks.7.*``.
    when : callable, optional
        ``when(array)`` gives True, or an array with a True somewhere, where to stop: ``lambda x: ~np.isfinite(x)``.
        At every tensor that fits if left out.
    then : callable, optional
        Another observer, asked first; it may replace the tensor.

    Returns
    -------
    observe : callable
        For ``npgemma.forward``, ``generate`` or ``trace``.

    Notes
    -----
    In a terminal this is pdb, which stops at the line behind the one that kept the tensor, so that it is bound already;
    ``c`` goes on to the next stop, ``q`` ends the run; ``describe q``, ``mask mask`` and ``lens out`` show what is
    there.  Under VS Code or PyCharm their debugger stops there.
    """
    patterns = as_patterns(only)

    def observe(name, x):
        replacement = None if then is None else then(name, x)
        current = x if replacement is None else replacement
        if matches(name, patterns) and (when is None or bool(np.any(to_host(when(current))))):
            printer.show(describe(current, name))
            stop_in(layer_frame())
        return replacement

    return observe


def layer_frame() -> FrameType:
    """The frame that called ``w.keep`` or ``w.show``, seen from an observer.

    Raises
    ------
    LookupError
        If no such call is under way.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in KEEPING:
        frame = frame.f_back
    while frame is not None and frame.f_code in KEEPING:
        frame = frame.f_back
    if frame is None:
        raise LookupError("no w.keep(...) is under way; an observer alone knows the layer's frame")
    return frame


def stop_in(frame: FrameType) -> None:
    """Open the debugger in a frame as soon as control comes back to it."""
    pydevd = sys.modules.get("pydevd")  # of VS Code and PyCharm; a notebook may have loaded it without using it
    if pydevd is not None and pydevd.get_global_debugger() is not None:
        pydevd.settrace(suspend=True, stop_at_frame=frame)
        return
    debugger = Debugger()
    debugger.reset()
    # As Bdb.set_trace does it, but tracing starts last: nothing of this module comes between the user and the layer.
    caller: FrameType | None = frame
    while caller is not None:
        caller.f_trace = debugger.trace_dispatch
        debugger.botframe = caller
        caller = caller.f_back
    debugger.set_next(frame)
    sys.settrace(debugger.trace_dispatch)


class Debugger(pdb.Pdb):
    """pdb, with npgemma's eyes at hand in every frame: ``describe q``, ``mask mask``, ``lens out``."""

    def do_describe(self, arg: str) -> None:
        """describe expression

        Say in one line what an array holds: shape, range, mean, histogram.
        """
        self.tell_of(arg, describe)

    def do_mask(self, arg: str) -> None:
        """mask expression

        Draw a mask: who may look at whom.
        """
        self.tell_of(arg, draw_mask)

    def do_lens(self, arg: str) -> None:
        """lens expression

        Say what the model would say next, by what leaves a block (out, middle), at the last position.
        """
        model = model_above(self.curframe)
        if model is None:
            self.error("there is no model in the frames below; want npgemma.lens(model, out)")
        else:
            self.tell_of(arg, lambda x: lens(model, x))

    complete_describe = complete_mask = complete_lens = pdb.Pdb.complete_p  # type: ignore[attr-defined]

    def tell_of(self, expression: str, tell: Callable[[Any], str]) -> None:
        """Print what ``tell`` makes of an expression's value in the frame that pdb stands in."""
        try:
            frame: Any = self.curframe
            self.message(tell(eval(expression.strip() or "None", frame.f_globals, frame.f_locals)))
        except Exception as problem:  # whatever was typed may raise whatever it likes
            self.error(f"{type(problem).__name__}: {problem}")


def model_above(frame: FrameType | None) -> Model | None:
    """The model that a frame works for: the nearest one among the variables of its callers."""
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, Model):
                return value
        frame = frame.f_back
    return None
