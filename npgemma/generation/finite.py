"""Logits that are numbers: NaN and infinities end a run, and the tensor at which they began is named."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from npgemma.base.errors import NonfiniteError
from npgemma.generation.requests import Ready
from npgemma.paligemma import Model, forward


class NonfiniteLogits(Exception):
    """One row of logits cannot be chosen from: that of the answer ``row``, which has ``ids`` so far."""

    def __init__(self, row: int, ids: Sequence[int]) -> None:
        super().__init__(row, ids)
        self.row = row
        self.ids = list(ids)


def finite_rows(logits):
    """Tell of each row whether it holds neither NaN nor infinity: logits (B, V) -> (B)."""
    return np.all(np.isfinite(logits), axis=-1)


def check_finite(finite, rows: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
    """Raise at the first row that is not all finite.

    Parameters
    ----------
    finite : (B)
        From :func:`finite_rows`, on the host.
    rows : sequence of B int
        The number of each row's answer.
    answers : sequence of B sequences of int
        Their ids so far.
    """
    for index, row in enumerate(rows):
        if not finite[index]:
            raise NonfiniteLogits(row, answers[index])


@contextlib.contextmanager
def locating(model: Model, ready: Sequence[Ready], observe=None) -> Iterator[None]:
    """Turn :class:`NonfiniteLogits` into an error that says where it began.

    Parameters
    ----------
    model : Model
    ready : sequence of Ready
        What each answer answers.
    observe : callable, optional
        Of the run; where there is one, the run is not repeated: it may have put tensors in place of others.
    """
    # What overflows is told once, at the end, and not as a warning for each operation that it passes through.
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            yield
        except NonfiniteLogits as problem:
            began, tokens = ("text.logits", "") if observe else first_nonfinite(model, ready[problem.row], problem.ids)
            raise NonfiniteError(
                f"{began} holds NaN or infinities, so that no token can be chosen: a weight is broken, or numbers "
                f"overflow. With the same picture and prompt, 'npgemma trace ... --stop-after {began}{tokens}' shows "
                "it, and 'npgemma doctor FOLDER' looks at the weights"
            ) from None


class Began(Exception):
    """The name of the first tensor that is not finite."""


def first_nonfinite(model: Model, ready: Ready, ids: list[int]) -> tuple[str, str]:
    """Run a prompt again, with what was answered, up to the first tensor that is not finite.

    Returns
    -------
    name : str
        As a trace names it: ``text.blocks.0.mlp.out``, ``step.3.text.logits``.
    tokens : str
        The option with which a trace comes to it.
    """
    found = began_at(model, ready, [])
    if found is None and ids:
        name = began_at(model, ready, ids) or "text.logits"
        return f"step.{len(ids) - 1}.{name}", f" --max-tokens {len(ids) + 1}"
    return found or "text.logits", ""


def began_at(model: Model, ready: Ready, answer: list[int]) -> str | None:
    """The first tensor of one forward pass that is not finite."""

    def watch(name: str, x: Any) -> None:
        if x.dtype.kind == "f" and not np.all(np.isfinite(x)):
            raise Began(name)

    pixels = ready.pixels[None] if len(ready.pixels) else None
    types = [[0] * len(ready.ids) + [1] * len(answer)]
    try:
        forward(model, [[*ready.ids, *answer]], pixels, types, last_only=True, observe=watch)
    except Began as place:
        return str(place)
    return None
