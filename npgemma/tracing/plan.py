"""What a trace will hold, known before anything is computed: names, shapes, bytes.

Letters: B batch, I pictures of the whole batch, M pictures of one prompt, R image side, T length of the prompt.
"""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base import inputs
from npgemma.base.describe import size_of
from npgemma.base.errors import InputError, InputTypeError
from npgemma.base.tensors import Tensor, tensors
from npgemma.config import Config
from npgemma.generation.requests import Request, prepare
from npgemma.generation.settings import Settings, check_whole, for_model
from npgemma.paligemma import Model
from npgemma.tracing.selection import as_patterns, check_patterns, matches

# A trace larger than this, in bytes, must be asked for twice.
LIMIT = 4 * 2**30


@dataclass(frozen=True)
class Question:
    """What the model is to read, and what a user should know about it.

    Parameters
    ----------
    ids, token_types, attention_mask, positions : (B, T)
    pixels : (B, M, R, R, 3) or (I, 3, R, R) or None
    image, prompt : str
        As typed; empty where an array or ids were given.
    notes : tuple of str
    """

    ids: np.ndarray
    token_types: np.ndarray
    attention_mask: np.ndarray
    positions: np.ndarray
    pixels: np.ndarray | None = None
    image: str = ""
    prompt: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A trace that has not run yet.

    Parameters
    ----------
    model : Model
        Already of the precision to run in.
    question : Question
    everything : dict of str to Tensor
        What will be computed, in order.
    tensors : dict of str to Tensor
        What will be kept, with the shapes that are left of chosen rows.  A generation that
        ends early keeps less.
    only, stop_after : tuple of str
        Patterns; empty for all, and for no early stop.
    rows : tuple of int, or None
        Positions of the prompt to keep.
    max_new_tokens : int
        More than 0 generates; the first token comes from the prefill.
    observe : callable, optional
    """

    model: Model
    question: Question
    everything: dict[str, Tensor]
    tensors: dict[str, Tensor]
    only: tuple[str, ...] = ()
    stop_after: tuple[str, ...] = ()
    rows: tuple[int, ...] | None = None
    max_new_tokens: int = 0
    observe: Callable[[str, Any], Any] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        floating = self.model.weights.precision.dtype
        return sum(tensor.nbytes(floating) for tensor in self.tensors.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor that is kept."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def last(self) -> str:
        """The tensor that the run need not go beyond."""
        if self.stop_after:
            return next(name for name in self.everything if matches(name, self.stop_after))
        # An observer may want to see what is not kept, and who generates wants the whole answer.
        free_to_stop = self.observe is None and not self.max_new_tokens
        return next(reversed(self.tensors), "") if free_to_stop else ""

    def rows_of(self, name: str) -> tuple[int, ...] | None:
        """The positions to keep of one tensor; None for all, as of each generated token."""
        return None if name.startswith("step.") else self.rows


def ask(model: Model, request: Request) -> Question:
    """Turn a picture and a prompt into what the model reads, as :func:`npgemma.generate` does."""
    ready = prepare(model, request)
    question = given(model.config, [ready.ids], ready.pixels[None] if len(ready.pixels) else None)
    pictures = request.image if isinstance(request.image, list) else [request.image]
    named = ", ".join(str(picture) for picture in pictures if isinstance(picture, str | Path))
    return replace(question, image=named, prompt=request.prompt, notes=tuple(ready.notes))


def given(cfg: Config, ids, pixels=None, token_types=None, attention_mask=None, positions=None) -> Question:
    """Take what :func:`npgemma.forward` takes, and fill in what was left out as it does."""
    ids = inputs.as_integers("ids", ids).astype(np.int64)
    types = np.zeros_like(ids) if token_types is None else inputs.as_integers("token_types", token_types)
    mask = np.ones_like(ids) if attention_mask is None else inputs.as_integers("attention_mask", attention_mask)
    slots = inputs.slot_positions(ids, cfg) if positions is None else inputs.as_integers("positions", positions)
    return Question(ids, types, mask, slots.astype(np.int64), None if pixels is None else inputs.as_pixels(pixels))


def plan(
    model: Model,
    question: Question,
    only: str | Iterable[str] | None = None,
    rows=None,
    stop_after: str | Iterable[str] | None = None,
    max_new_tokens: int = 0,
    observe: Callable[[str, Any], Any] | None = None,
) -> Plan:
    """Work out what a trace will hold.

    Parameters
    ----------
    model : Model
    question : Question
    only : str or iterable of str, optional
        Patterns such as ``text.blocks.*.attn.probs``, also several between commas; all tensors if left out.
    rows : int, slice, iterable of int or str, optional
        Which positions of the prompt to keep of tensors that have them (``-1`` the last, ``"0:4,-1"``).  Patches of
        the vision tower are not positions: its tensors are kept whole, and so are those of generated tokens.
    stop_after : str or iterable of str, optional
        The first tensor that fits is the last one computed.
    max_new_tokens : int
    observe : callable, optional

    Raises
    ------
    InputError
        If a pattern fits nothing, or a row lies outside the prompt.
    """
    # Before a list is made of what each token computes.
    check_whole("max_new_tokens", max_new_tokens, 0)
    if max_new_tokens:  # held against the context before a list is made of what each token computes
        for_model(Settings(max_new_tokens=max_new_tokens), model.config, question.ids.shape[1])
    everything = all_tensors(model.config, question, max_new_tokens)
    patterns, last = (as_patterns(() if each is None else each) for each in (only, stop_after))
    check_patterns([*patterns, *last], everything)
    chosen = None if rows is None else row_numbers(rows, question.ids.shape[1])
    wanted = {name: tensor for name, tensor in everything.items() if not patterns or matches(name, patterns)}
    if chosen is not None:
        wanted = {name: tensor if name.startswith("step.") else cut(tensor, chosen) for name, tensor in wanted.items()}
    kept = until(wanted, everything, last)
    return Plan(model, question, everything, kept, patterns, last, chosen, max_new_tokens, observe)


def all_tensors(cfg: Config, question: Question, max_new_tokens: int) -> dict[str, Tensor]:
    """List each tensor of a forward pass, or of a prefill and its steps."""
    B, T = question.ids.shape
    pictures = inputs.flat_pictures(question.pixels, question.ids, cfg)
    count = 0 if pictures is None else len(pictures)
    found = tensors(cfg, B, count, T, last_only=max_new_tokens > 0)
    # The last token that is chosen is never read.
    for number in range(max_new_tokens - 1):
        step = tensors(cfg, B, 0, 1, past=T + number)
        found |= {f"step.{number}.{name}": tensor for name, tensor in step.items()}
    return found


def until(wanted: dict[str, Tensor], everything: dict[str, Tensor], last: tuple[str, ...]) -> dict[str, Tensor]:
    """Leave out what comes behind the first tensor that fits ``last``."""
    if not last:
        return wanted
    names = list(everything)
    end = next(index for index, name in enumerate(names) if matches(name, last))
    reached = set(names[: end + 1])
    return {name: tensor for name, tensor in wanted.items() if name in reached}


def cut(tensor: Tensor, rows: tuple[int, ...]) -> Tensor:
    """The tensor with the chosen positions only, where it has positions."""
    letters = tensor.letters.split()
    sizes = [len(rows) if letter == "T" else size for letter, size in zip(letters, tensor.shape, strict=True)]
    return replace(tensor, shape=tuple(sizes))


def row_numbers(rows, length: int) -> tuple[int, ...]:
    """Number the chosen positions from 0, each once, in order.

    Raises
    ------
    InputError
        If there is none, or one lies outside the prompt.
    """
    parts = rows.split(",") if isinstance(rows, str) else [rows] if not isinstance(rows, Iterable) else rows
    numbers: list[int] = []
    try:
        for part in parts:
            item = parsed(part) if isinstance(part, str) else part
            numbers += range(length)[item] if isinstance(item, slice) else [operator.index(item)]
    except InputError:
        raise  # from parsed; a ValueError too
    except (TypeError, ValueError) as problem:  # no whole number; a slice of step 0
        raise InputTypeError(
            f"came as {rows!r:.80}: {problem}; want positions such as -1 or '0:4,-1'",
            argument="rows",
        ) from None
    outside = [number for number in numbers if not -length <= number < length]
    if outside or not numbers:
        raise InputError(
            f"came as {rows!r}; the prompt has {length} positions, want some of 0..{length - 1}",
            argument="rows",
        )
    return tuple(sorted({number % length for number in numbers}))


def parsed(part: str) -> int | slice:
    """Read ``-1`` or ``0:4``."""
    try:
        ends = [int(end) if end.strip() else None for end in part.split(":")]
        if len(ends) == 1 and ends[0] is not None:
            return ends[0]
        if 2 <= len(ends) <= 3:
            return slice(*ends)
    except ValueError:
        pass
    raise InputError(f"{part!r} is no position; want numbers and ranges such as 0:4,-1", argument="rows")


def check_size(planned: Plan, force: bool) -> None:
    """Refuse a trace above the limit, unless it was asked for twice.

    Raises
    ------
    InputError
    """
    if planned.nbytes > LIMIT and not force:
        raise InputError(
            f"the trace would take {size_of(planned.nbytes)}, more than {size_of(LIMIT)};"
            " choose tensors by only (--only), positions by rows (--rows), or take it all by force=True (--force)"
        )
