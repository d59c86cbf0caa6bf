"""Walking through the model in a terminal: each tensor with its formula, its source line, its inputs and its values."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from npgemma.base import printer
from npgemma.base.describe import describe, to_host
from npgemma.base.errors import InputError
from npgemma.base.expressions import explained
from npgemma.base.tensors import Tensor
from npgemma.paligemma import Model
from npgemma.show.lens import lens_line
from npgemma.show.mask_art import draw_attention_row, draw_mask
from npgemma.show.token_table import pieces_of, token_table
from npgemma.show.breaking import layer_frame, stop_in
from npgemma.tracing.plan import Question
from npgemma.tracing.selection import as_patterns, check_patterns, matches
from npgemma.tracing.trace import Stopped

HELP = """  Enter       go on to the next tensor
  n GLOB      run to a tensor, such as n text.blocks.3.attn.scores or n *.out
  p           print the values
  m           draw the mask; at attention weights: where the last position looks (m ROW, m ROW HEAD)
  t           the table of tokens
  l           the likeliest next tokens at this point, at an output of a block
  d           pdb right here, with the layer's variables; c goes on
  q           leave"""
# Values of a large weight or tensor that a line is made from.
LOOKED_AT = 1 << 20


class Walk:
    """An observer that shows each tensor and asks what to do.

    Parameters
    ----------
    model : Model
    question : Question
        Of one row.
    tensors : mapping of str to Tensor
        Of the run, by name.
    read : callable
        ``read(prompt)`` gives a line; EOFError ends the walk.
    write : callable
    """

    def __init__(
        self,
        model: Model,
        question: Question,
        tensors: Mapping[str, Tensor],
        read: Callable[[str], str] = input,
        write: Callable[[str], object] = printer.say,
    ) -> None:
        self.model = model
        self.question = question
        self.tensors = tensors
        self.read = read
        self.write = write
        self.until: tuple[str, ...] = ("*",)
        self.mask: np.ndarray | None = None

    def __call__(self, name: str, x) -> None:
        if name.startswith("mask."):
            self.mask = to_host(x)[0]
        if not matches(name, self.until):
            return
        self.until = ("*",)
        frame = layer_frame()
        self.write(self.page(name, x, frame))
        while not self.done(name, x, frame):
            pass

    def page(self, name: str, x, frame: FrameType) -> str:
        """What is shown of a tensor before any question."""
        tensor = self.tensors[name]
        file = Path(frame.f_code.co_filename)
        statement, inputs = statement_at(frame)
        lines = [
            f"\n{name} = {explained(name, tensor, self.model.config)}",
            f"  {file.parent.name}/{file.name}:{frame.f_lineno} in {frame.f_code.co_name}:  {statement}",
        ]
        lines += [f"  in   {describe(value, short, most=LOOKED_AT)}" for short, value in inputs.items()]
        lines.append(f"  out  {describe(x, name, tensor.letters)}")
        if re.fullmatch(r"text\.blocks\.\d+\.out", name):
            lines.append(f"  the model would say now:  {lens_line(self.model, to_host(x)[0, -1])}")
        return "\n".join(lines)

    def done(self, name: str, x, frame: FrameType) -> bool:
        """Ask for a command and do it; True when the run is to go on."""
        try:
            words = self.read(f"({name}) ").split()
        except (EOFError, RuntimeError):  # RuntimeError: standard input was closed before the start
            raise Stopped from None
        command, rest = (words[0], words[1:]) if words else ("", [])
        if command == "q":
            raise Stopped
        if command == "d":
            stop_in(frame)
            return True
        if command == "n" and rest:
            return self.runs_to(rest[0], name)
        if command:
            self.write(self.answer(command, rest, name, x))
        return not command

    def runs_to(self, pattern: str, name: str) -> bool:
        """Run to the next tensor that fits, if there is one ahead."""
        names = list(self.tensors)
        try:
            check_patterns([pattern], names[names.index(name) + 1 :])
        except InputError as problem:
            self.write(f"  ahead of here, {problem}")
            return False
        self.until = as_patterns(pattern)
        return True

    def answer(self, command: str, rest: list[str], name: str, x) -> str:
        """What a command prints."""
        if command == "p":
            return np.array2string(to_host(x), threshold=400, edgeitems=3, max_line_width=120)
        if command == "m":
            return self.drawing(name, to_host(x), rest)
        if command == "t":
            return self.table()
        if command == "l" and re.fullmatch(r"text\.blocks\.\d+\.out", name):
            return f"  {lens_line(self.model, to_host(x)[0, -1], count=10)}"
        return f"  there is no command {command!r}; there are\n{HELP}"

    def table(self) -> str:
        """The tokens of the prompt."""
        q = self.question
        rows = q.ids[0], q.token_types[0], q.attention_mask[0], q.positions[0]
        return token_table(self.model.config, self.model.tokenizer, *rows)

    def drawing(self, name: str, x: np.ndarray, rest: list[str]) -> str:
        """One row of attention weights where there are such, else the mask."""
        if not name.endswith("attn.probs"):
            return "  no mask yet: all patches look at all" if self.mask is None else draw_mask(self.mask)
        heads = x[0].reshape(-1, *x.shape[-2:])
        try:
            row, *head = [int(word) for word in rest] or [-1]
            looks = heads[head[0]][row] if head else heads[:, row].mean(axis=0)
        except (ValueError, IndexError):
            return f"  want m ROW HEAD, rows 0..{heads.shape[1] - 1}, heads 0..{heads.shape[0] - 1}"
        which = f"head {head[0]}" if head else f"mean of {len(heads)} heads"
        title = f"where row {row % heads.shape[1]} looks, {which}"
        if name.startswith("vision."):
            return f"{title}\n{draw_attention_row(looks, [True] * len(looks), [''] * len(looks))}"
        ids = self.question.ids[0]
        labels = pieces_of(self.model.config, self.model.tokenizer, ids)
        return f"{title}\n{draw_attention_row(looks, ids == self.model.config.image_token_id, labels)}"


def statement_at(frame: FrameType) -> tuple[str, dict[str, Any]]:
    """The statement that a frame is in, on one line, and the arrays it reads: locals, and weights as they are stored.

    Parameters
    ----------
    frame : FrameType
        Of a layer.
    """
    lines, first = inspect.getsourcelines(frame.f_code)
    source = textwrap.dedent("".join(lines))
    tree, line = ast.parse(source), frame.f_lineno - first + 1
    around = [
        node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    statement = max(around, key=lambda node: node.lineno)
    inputs: dict[str, Any] = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            value = frame.f_locals.get(node.id)
            if hasattr(value, "dtype") and hasattr(value, "shape"):
                inputs[node.id] = value
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "w":
            # The layer's own expression for a weight's name, which may hold a variable.
            key = eval(compile(ast.Expression(node.slice), "", "eval"), frame.f_globals, dict(frame.f_locals))
            w = frame.f_locals["w"]
            inputs[key] = w.arrays[w.path + key]
    return " ".join((ast.get_source_segment(source, statement) or "").split()), inputs
