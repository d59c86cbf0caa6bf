"""Walking through the gradients in a terminal, the last tensor's first: ``grad text.logits`` to ``grad pixels``."""

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import numpy as np

from npgemma.base import printer
from npgemma.base.describe import describe
from npgemma.base.errors import InputError
from npgemma.base.tensors import Tensor
from npgemma.show.breaking import layer_frame, stop_in
from npgemma.show.stop import LOOKED_AT, as_text, command_of, place_of, statement_at, value_of
from npgemma.tracing.selection import as_patterns, check_patterns, matches

HELP = """  Enter       go on to the next gradient, which is of the tensor before
  n GLOB      run to the gradient of a tensor, such as n text.blocks.3.attn.probs
  p           print the values; p EXPRESSION of the mirrored layer's variables, np, and d, the gradient: p d.shape
  r EXPR      put something else in its place and go on, such as r 0 * d or r d.clip(-1, 1), with d and np
  d           pdb right here, with the mirrored layer's variables; c goes on (the command d; in an expression d is
              the gradient).  There is no back: gradients are made one way, and once
  q           leave"""


class WalkBack:
    """An observer that shows each gradient and asks what to do.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Of the run, by name.
    read, write : callable
        As of :class:`npgemma.show.walk.Walk`.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], read: Callable[[str], str] = input,
        write: Callable[[str], object] = printer.say,
    ) -> None:
        self.tensors = tensors
        self.read = read
        self.write = write
        self.until: tuple[str, ...] = ("*",)

    def __call__(self, name: str, d) -> Any:
        if not matches(name, self.until):
            return None
        self.until = ("*",)
        frame = layer_frame()
        self.write(self.page(name, d, frame))
        replacement, done = None, False
        while not done:
            replacement, done = self.asked(name, d, frame)
        return replacement

    def page(self, name: str, d, frame: FrameType) -> str:
        """What is shown of a gradient before any question."""
        statement, inputs = statement_at(frame)
        lines = [f"\ngrad {name}", f"  {place_of(frame)}:  {statement}"]
        lines += [f"  in   {describe(value, short, most=LOOKED_AT)}" for short, value in inputs.items()]
        return "\n".join([*lines, f"  out  {describe(d, f'grad {name}', self.tensors[name].letters)}"])

    def asked(self, name: str, d, frame: FrameType) -> tuple[Any, bool]:
        """Ask for a command and do it: what goes on instead of the gradient, if anything; True to go on."""
        command, rest = command_of(self.read, f"grad {name}")
        if command == "d":
            stop_in(frame)
        elif command == "n" and rest:
            return None, self.runs_to(rest, name)
        elif command == "r" and rest:
            return self.replaced(rest, d)
        elif command:
            unknown = f"  there is no command {command!r}; there are\n{HELP}"
            self.write(self.printed(rest, d, frame) if command == "p" else unknown)
        return None, command in ("", "d")

    def printed(self, expression: str, d, frame: FrameType) -> str:
        """The gradient itself, or the value of an expression."""
        return value_of(expression, frame, {"np": np, **frame.f_locals, "d": d}) if expression else as_text(d)

    def runs_to(self, pattern: str, name: str) -> bool:
        """Run to the next gradient that fits, which is of an earlier tensor, if there is one."""
        names = list(self.tensors)
        patterns = as_patterns(pattern.removeprefix("grad "))
        try:
            check_patterns(patterns, names[: names.index(name)])
        except InputError as problem:
            self.write(f"  ahead of here, {problem}")
            return False
        self.until = patterns
        return True

    def replaced(self, expression: str, d) -> tuple[Any, bool]:
        """The value of an expression, if it is an array like d."""
        try:
            value = np.asarray(eval(expression, {"np": np, "d": d}), like=d)
        except Exception as problem:  # whatever was typed may raise whatever it likes
            self.write(f"  {type(problem).__name__}: {problem}")
            return None, False
        if value.shape != d.shape or value.dtype != d.dtype:
            self.write(f"  that is {value.shape} {value.dtype}; want {d.shape} {d.dtype}")
            return None, False
        return value, True
