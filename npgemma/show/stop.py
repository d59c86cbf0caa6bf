"""One stop of a walk: a tensor with its formula, source line, inputs and values, and what can be asked of it."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import npgemma
from npgemma.base.describe import describe
from npgemma.base.device import to_host
from npgemma.base.expressions import explained
from npgemma.base.tensors import Call, Tensor
from npgemma.paligemma import Model
from npgemma.show.lens import lens
from npgemma.show.mask_art import beside, draw_attention_row, draw_mask
from npgemma.show.token_table import pieces_of, token_table
from npgemma.tracing.plan import Question
from npgemma.tracing.selection import without_step
from npgemma.tracing.trace import Stopped

# Values of a large weight or tensor that a line is made from.
LOOKED_AT = 1 << 20
BLOCK_OUT = r"text\.blocks\.\d+\.out"
RESIDUAL = rf"text\.spliced|text\.blocks\.\d+\.middle|{BLOCK_OUT}"


def command_of(read: Callable[[str], str], where: str) -> tuple[str, str]:
    """Read a command and what stands behind it; ``q``, and the end of what is typed, end the walk."""
    try:
        command, _, rest = read(f"({where}) ").strip().partition(" ")
    except (EOFError, RuntimeError):  # RuntimeError: standard input was closed before the start
        raise Stopped from None
    if command == "q":
        raise Stopped
    return command, rest.strip()


@dataclass(frozen=True)
class Stop:
    """A tensor, in the frame of the layer that has just computed it.

    Parameters
    ----------
    name : str
        ``step.0.text.logits``.
    x : array
    frame : FrameType
    tensor : Tensor
    call : Call
        Which of the model's calls it is of.
    model : Model
    question : Question
        Of one row.
    said : tuple of int
        The ids of the answer so far.
    masks : mapping of str to array
        ``mask.full`` and ``mask.sliding``, (T, S), once they are made.
    """

    name: str
    x: Any
    frame: FrameType
    tensor: Tensor
    call: Call
    model: Model
    question: Question
    said: Sequence[int] = ()
    masks: Mapping[str, np.ndarray] | None = None

    @property
    def plain(self) -> str:
        """The name as in the prefill."""
        return without_step(self.name)


def page(stop: Stop) -> list[tuple[str, str]]:
    """What is shown before any question: lines, each with its style."""
    statement, inputs = statement_at(stop.frame)
    place = f"  {place_of(stop.frame)}:  {statement}"
    formula = explained(stop.plain, stop.tensor, stop.model.config, stop.call)
    lines = [(f"\n{stop.name} = {formula}", "bold"), (place, "dim")]
    lines += [(f"  in   {describe(value, short, most=LOOKED_AT)}", "") for short, value in inputs.items()]
    lines.append((f"  out  {describe(stop.x, stop.name, stop.tensor.letters)}", "cyan"))
    if re.fullmatch(BLOCK_OUT, stop.plain):
        lines.append((f"  the model would say now:  {lens(stop.model, to_host(stop.x))}", "green"))
    return lines


def place_of(frame: FrameType) -> str:
    """Where a frame is: its file from the package on, the line, the function."""
    parts = Path(frame.f_code.co_filename).parts
    package = len(parts) - 1 - parts[::-1].index("npgemma") if "npgemma" in parts else -1
    return f"{'/'.join(parts[package:])}:{frame.f_lineno} in {frame.f_code.co_name}"


def values(stop: Stop, expression: str) -> str:
    """The tensor itself, or the value of any expression of the layer's variables, of ``np``, ``npgemma``, ``model``.

    The tensor is known by the last part of its name, for the layer has not bound it yet.
    """
    if not expression:
        return as_text(stop.x)
    ours = {"np": np, "npgemma": npgemma, "model": stop.model}
    return value_of(expression, stop.frame, {**ours, **stop.frame.f_locals, stop.plain.split(".")[-1]: stop.x})


def value_of(expression: str, frame: FrameType, names: Mapping[str, Any]) -> str:
    """What an expression gives where a frame is, as text; what is wrong with it, if anything."""
    try:
        return as_text(eval(expression, frame.f_globals, dict(names)))
    except Exception as problem:  # whatever was typed may raise whatever it likes
        return f"  {type(problem).__name__}: {problem}"


def as_text(value: Any) -> str:
    """A value as it is printed: a large array with its middle left out, a text as it stands."""
    if isinstance(value, str):
        return value
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return np.array2string(to_host(value), threshold=400, edgeitems=3, max_line_width=120)
    return repr(value)


def table(stop: Stop) -> str:
    """The tokens of the prompt, and of the answer so far."""
    q, more = stop.question, len(stop.said)
    return token_table(
        stop.model.config,
        stop.model.tokenizer,
        np.concatenate([q.ids[0], np.array(stop.said, dtype=q.ids.dtype)]),
        np.concatenate([q.token_types[0], np.ones(more, int)]),
        np.concatenate([q.attention_mask[0], np.ones(more, int)]),
        np.concatenate([q.positions[0], q.positions[0, -1:] + np.arange(1, more + 1)]),
    )


def likeliest(stop: Stop) -> str:
    """What the model would say if it stopped thinking here."""
    if not re.fullmatch(RESIDUAL, stop.plain):
        return "  the lens reads what runs through the decoder's blocks: n text.blocks.*.out is the next such place"
    return f"  {lens(stop.model, to_host(stop.x), count=10)}"


def drawing(stop: Stop, words: Sequence[str]) -> str:
    """Where a row looks, at attention weights; elsewhere the mask."""
    if stop.plain.endswith("attn.probs"):
        return attention(stop, words)
    if words:
        return "  m ROW HEAD is about attention weights: n *.attn.probs is the next such place; m alone draws the mask"
    if stop.plain.startswith(("vision.", "pixels", "connector.")):
        return "  there is no mask here: every patch looks at every patch"
    here = re.match(r"text\.blocks\.(\d+)\.", stop.plain)
    slides = here is not None and stop.model.config.text.layer_windows[int(here[1])] is not None
    name = stop.plain if stop.plain.startswith("mask.") else "mask.sliding" if slides else "mask.full"
    if name not in (stop.masks or {}):
        return f"  {name} is not made yet: n {name} is the place"
    return f"{name}\n{draw_mask((stop.masks or {})[name])}"


def attention(stop: Stop, words: Sequence[str]) -> str:
    """Where one row looks: the mean of all heads, one head, or all of them side by side."""
    x = to_host(stop.x)
    heads = x[0].reshape(-1, *x.shape[-2:])
    N, T, _ = heads.shape
    try:
        row = int(words[0]) if words else -1
        wanted = list(range(N)) if words[1:] == ["all"] else [int(word) for word in words[1:]]
        rows = [(f"head {head}", heads[head, row]) for head in wanted] or [
            (f"mean of {N} heads", heads[:, row].mean(axis=0))
        ]
    except (ValueError, IndexError):
        return f"  want m ROW HEAD, rows 0..{T - 1}, heads 0..{N - 1} or all"
    return beside([f"where row {row % T} looks, {which}\n{looks_at(stop, looks)}" for which, looks in rows])


def looks_at(stop: Stop, looks: np.ndarray) -> str:
    """Draw one row of attention weights over patches, or over the tokens so far."""
    if stop.plain.startswith("vision."):
        return draw_attention_row(looks, [True] * len(looks), [""] * len(looks))
    ids = np.concatenate([stop.question.ids[0], np.array(stop.said, dtype=int)])[: len(looks)]
    labels = pieces_of(stop.model.config, stop.model.tokenizer, ids)
    return draw_attention_row(looks, ids == stop.model.config.image_token_id, labels)


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
