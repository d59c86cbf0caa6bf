"""One lesson: read a batch, see how surprising its answers are, and go back through the model for the reasons.

Letters: B rows, I pictures, R image side, T positions, D width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma import paligemma, text
from npgemma.backward import paligemma as backward
from npgemma.backward.tape import Rerun, Sums, Tape
from npgemma.base import inputs
from npgemma.base.device import to_host
from npgemma.base.errors import InputError
from npgemma.generation.requests import Request, prepare
from npgemma.generation.scoring import suffix_ids
from npgemma.learn.losses import IGNORED, cross_entropy, cross_entropy_plain
from npgemma.paligemma import Model
from npgemma.tracing.selection import as_patterns, check_patterns, matches


@dataclass(frozen=True)
class Batch:
    """Questions with their answers, as the model reads them.

    Parameters
    ----------
    ids, token_types, attention_mask, positions : (B, T)
        As :func:`npgemma.forward` takes them.
    labels : (B, T)
        The token that should come next; :data:`npgemma.learn.losses.IGNORED` where nobody asks.
    pixels : (I, R, R, 3) or None
        Pictures of all rows, in order.
    """

    ids: np.ndarray
    token_types: np.ndarray
    attention_mask: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray | None = None

    def beside(self, w):
        """The batch where the weights lie."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        return Batch(**{name: w.beside(array) for name, array in arrays.items()})

    @property
    def count(self) -> int:
        """How many positions are labelled."""
        return int(np.sum(self.labels != IGNORED))


def make_batch(cfg, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pixels=None) -> Batch:
    """Arrange (prompt ids, answer ids) rows, padded on the right, where nobody looks.

    Parameters
    ----------
    cfg : Config
    rows : sequence of (ids, ids)
        The prompt with its image tokens; the answer with its stop id.
    pixels : (I, R, R, 3), optional

    Notes
    -----
    The last id of an answer is only predicted, never read.  Beyer et al. 2024, sec. 3.1: the loss is on the suffix.
    """
    T = max(len(prefix) + len(suffix) - 1 for prefix, suffix in rows)
    ids = np.full((len(rows), T), cfg.pad_id, dtype=np.int64)
    token_types, attention_mask = np.zeros_like(ids), np.zeros_like(ids)
    labels = np.full_like(ids, IGNORED)
    for row, (prefix, suffix) in enumerate(rows):
        first, end = len(prefix), len(prefix) + len(suffix) - 1
        ids[row, :end] = [*prefix, *suffix[:-1]]
        token_types[row, first:] = 1
        attention_mask[row, :end] = 1
        labels[row, first - 1 : end] = suffix
    return Batch(ids, token_types, attention_mask, inputs.slot_positions(ids, cfg), labels, pixels)


def check_batch(batch: Batch, model: Model) -> None:
    """Refuse a batch or a model whose gradient would be wrong."""
    precision = model.weights.precision
    if precision.name not in ("float32", "float64"):
        came = f"{precision.name} rounds, and rounding has no gradient"
        raise InputError(f"{came}; want float32 or float64", argument="precision")
    if np.any((batch.labels != IGNORED) & (batch.attention_mask == 0)):
        raise InputError("one stands at padding; want labels at real tokens only", argument="labels")


def teach(model: Model, batch: Batch, sums: Any, weight: float = 1.0, *, rerun: bool = False) -> float:
    """Add a batch's gradients to ``sums``, scoring labelled rows only.

    Parameters
    ----------
    model : Model
    batch : Batch
    sums : Sums, or what has its ``wants`` and ``add``
    weight : float
        What each labelled token counts: 1 / their number gives the mean loss that transformers gives.
    rerun : bool
        Remember only each block's output, and run blocks again on the way back: less memory, the same bits.

    Returns
    -------
    loss : float
        ``weight`` times the sum over labelled tokens; 0 where there are none.
    """
    check_batch(batch, model)
    batch = batch.beside(model.weights)
    tape = new_tape(model, sums, rerun)
    soft = see(tape, model, batch.pixels)
    loss, d_soft = answer(tape, model, batch, soft, np.full_like(batch.labels, weight, dtype=np.float64))
    see_back(tape, model, d_soft)
    return loss


def new_tape(model: Model, sums: Any, rerun: bool = False, observe=None) -> Tape:
    """Give an empty tape, which the next run fills."""
    return Tape(Rerun(model.weights, model.config) if rerun else {}, model.weights, sums, observe)


def watched(tape: Tape):
    """The weights, whose run the tape records."""
    record: Any = tape.tensors
    return tape.weights.watched_by(record.observe if isinstance(record, Rerun) else record.__setitem__)


def see(tape: Tape, model: Model, pixels):
    """Run the vision tower on pictures (I, R, R, 3), if there are any; gives soft tokens (I, P, D) or None."""
    return None if pixels is None else paligemma.see(watched(tape), model.config, pixels)


def answer(tape: Tape, model: Model, batch: Batch, soft, weights):
    """Read a batch with its pictures' soft tokens, score labelled rows, and go back to the soft tokens.

    Parameters
    ----------
    tape : Tape
    model : Model
    batch : Batch
    soft : (I, P, D) or None
    weights : (B, T)
        What each labelled token counts.

    Returns
    -------
    loss : float
    d_soft : (I, P, D) or None
    """
    cfg, counted = model.config, batch.labels != IGNORED
    norm = read(tape, model, batch, soft)
    table, labels = tape["text.embedded.weight"], batch.labels[counted]
    loss, d_rows, d_table = cross_entropy(norm[counted], table, labels, weights[counted], cfg.text.final_softcap)
    tape.add("text.embedded.weight", d_table)
    d_norm = np.zeros_like(norm)
    d_norm[counted] = d_rows
    return loss, backward.read(d_norm, tape, cfg, soft)


def read(tape: Tape, model: Model, batch: Batch, soft):
    """Run the decoder, up to the head: norm (B, T, D)."""
    given = batch.ids, soft, batch.token_types, batch.attention_mask, batch.positions
    return paligemma.read(watched(tape), model.config, *given)[0]


def see_back(tape: Tape, model: Model, d_soft, always: bool = False) -> None:
    """Go back through the vision tower, where there was a picture and somebody wants its gradients."""
    if d_soft is not None and (always or tape.wants_below("vision.") or tape.wants_below("connector.")):
        backward.see(d_soft, tape, model.config)


@dataclass(frozen=True)
class Gradients:
    """What each number of a run had to do with the surprise at an answer.

    Parameters
    ----------
    loss : float
        Mean over the answer's tokens.
    tensors : dict of str to array
        Gradients of named tensors, in the trace's order reversed.
    weights : dict of str to array
    """

    loss: float
    tensors: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def gradients(
    model: Model,
    image: Any = None,
    prompt: str = "",
    answer: str | Sequence[int] = "",
    *,
    ids: Sequence[int] | None = None,
    pixels: Any = None,
    only: str | Iterable[str] | None = None,
    observe: Callable[[str, Any], Any] | None = None,
) -> Gradients:
    """Find what each tensor and each weight had to do with the surprise at an answer.

    Parameters
    ----------
    model : Model
        float32 or float64.
    image, prompt, ids, pixels
        As in :func:`npgemma.generate`.
    answer : str or sequence of int
        Text, which ends with ``<eos>``, or all its ids.
    only : str or iterable of str, optional
        Patterns of tensors and weights, such as ``"pixels"`` or ``"text.blocks.*.attn.q.weight"``; all if left out.
    observe : callable, optional
        ``observe(name, d)`` sees the gradient of each tensor, from ``text.logits`` back to ``pixels``; what it returns
        goes on in its place.

    Returns
    -------
    gradients : Gradients

    Raises
    ------
    InputError
        If there is no answer, or a pattern fits nothing.

    Examples
    --------
    >>> npgemma.gradients(model, "cat.png", "caption en", "a cat", only="pixels").tensors["pixels"].shape
    (1, 224, 224, 3)
    """
    ready = prepare(model, Request(image, prompt, ids, pixels))
    suffix = suffix_ids(model, answer, "refuse")
    batch = make_batch(model.config, [(ready.ids, suffix)], ready.pixels if len(ready.pixels) else None)
    return gradients_of(model, batch, only, observe)


def gradients_of(model: Model, batch: Batch, only=None, observe=None) -> Gradients:
    """Find what each tensor and weight had to do with the mean loss of a batch, ``grad text.logits`` among them."""
    check_batch(batch, model)
    batch = batch.beside(model.weights)
    patterns = as_patterns(() if only is None else only)
    found: dict[str, np.ndarray] = {}

    def watch(name, d_x):
        replacement = None if observe is None else observe(name, d_x)
        if not patterns or matches(name, patterns):
            found[name] = to_host(d_x if replacement is None else replacement)
        return replacement

    cfg = model.config
    sums = Sums(name for name in model.weights.arrays if not patterns or matches(name, patterns))
    tape = new_tape(model, sums, observe=watch)
    soft = see(tape, model, batch.pixels)
    logits = text.logits(read(tape, model, batch, soft), watched(tape).at("text"), cfg.text)
    check_patterns(patterns, [*differentiable(tape), *model.weights.arrays])
    weights = np.full_like(batch.labels, 1.0 / max(batch.count, 1), dtype=np.float64)
    loss, d_logits = cross_entropy_plain(logits, batch.labels, weights)
    d_soft = backward.prefill(d_logits, tape, cfg, soft)
    seen = [name for name in differentiable(tape) if name.startswith(("pixels", "vision.", "connector."))]
    always = observe is not None or not patterns or any(matches(name, patterns) for name in seen)
    see_back(tape, model, d_soft, always)
    return Gradients(loss, found, {name: to_host(d_weight) for name, d_weight in sums.items()})


def differentiable(tape: Tape) -> list[str]:
    """The tensors of a run that have a gradient: floats but the angles, which follow from the positions."""
    return [name for name, x in tape.tensors.items() if x.dtype.kind == "f" and name not in ("text.cos", "text.sin")]
