"""Cross-entropy over the answer: how surprised the model is by the tokens it should have said.

Only labelled positions count: prompt, pictures and padding have the label :data:`IGNORED`.
Letters: T labelled positions of all rows, D width, V vocabulary rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma import ops
from npgemma.backward import ops as backward
from npgemma.base import half
from npgemma.base.errors import InputError
from npgemma.base.precision import unrounded
from npgemma.masks import BIG_NEG

# The label of a position that does not count, as in torch.nn.functional.cross_entropy.
IGNORED = -100

# Rows of the table that are scored at once: 257,152 words for 16 positions are 16 MB in float32, 0.5 MB a chunk.
CHUNK = 8192


def check_labels(labels, vocab_size):
    """Refuse labels that are no word: a negative one would silently count from the end."""
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= vocab_size))]
    if wrong.size:
        wanted = f"want 0..{vocab_size - 1}, or {IGNORED} to ignore"
        raise InputError(f"{int(wrong[0])} is among them; {wanted}", argument="labels")


def cross_entropy_plain(logits, labels, weights):
    """Score whole logits: the plain form that :func:`cross_entropy` must equal, and where ``grad text.logits`` starts.

    Parameters
    ----------
    logits : (..., V)
    labels : (...)
        The next token; IGNORED where it does not count.
    weights : (...)
        What each position's surprise counts in the sum.

    Returns
    -------
    loss : float
        sum of weights * -log p(label); 0 where nothing is labelled.
    d_logits : (..., V)

    Notes
    -----
    d = p - onehot(label), whose part at the label is taken from the sum of all others: p - 1 cancels where p is sure.
    """
    check_labels(labels, logits.shape[-1])
    counted = labels != IGNORED
    rows, row_labels = logits[counted], labels[counted]
    row_weights = weights[counted].astype(logits.dtype)
    others, wanted = apart(rows, row_labels, 0)
    loss, scale, d_label = surprise(log_sum(others), wanted)
    d_rows = np.exp(others - scale[:, None])
    d_rows[np.arange(len(rows), like=rows), row_labels] = d_label
    d_logits = np.zeros_like(logits)
    d_logits[counted] = d_rows * row_weights[:, None]
    return float(np.sum(loss * row_weights)), d_logits


def apart(scores, labels, start):
    """Take each row's label out of a chunk of scores whose first word is ``start``.

    Parameters
    ----------
    scores : (T, chunk)
    labels : (T)
    start : int

    Returns
    -------
    others : (T, chunk)
        -inf where the label stood.
    wanted : (T)
        The label's score; -inf where it is in another chunk.
    """
    rows = np.flatnonzero((labels >= start) & (labels < start + scores.shape[1]))
    columns = labels[rows] - start
    others, wanted = scores.copy(), np.full_like(scores[:, 0], -np.inf)
    wanted[rows] = scores[rows, columns]
    others[rows, columns] = -np.inf
    return others, wanted


def log_sum(scores):
    """Give the logarithm of each row's summed exponentials, -inf where all are: scores (T, chunk) -> (T)."""
    # Finite, so that a row of -inf does not become NaN.
    highest = np.maximum(np.max(scores, axis=-1), BIG_NEG)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(scores - highest[:, None]), axis=-1)) + highest


def surprise(others, wanted):
    """Give each position's loss from the label's score and the log-sum of all others'.

    Parameters
    ----------
    others, wanted : (T)

    Returns
    -------
    loss : (T)
        log(1 + exp(others - wanted)), which a sure answer makes tiny and never 0 by rounding.
    scale : (T)
        Log-sum of all scores.
    d_label : (T)
        -(1 - p(label)), without the subtraction.
    """
    scale = np.logaddexp(others, wanted)
    return np.logaddexp(0.0, others - wanted).astype(scale.dtype), scale, -np.exp(others - scale)


def cross_entropy(x, table, labels, weights, cap, chunk=CHUNK):
    """Score rows by the tied table, a chunk of its words at a time; whole logits never exist.

    Parameters
    ----------
    x : (T, D)
        Labelled rows of ``text.norm``.
    table : (V, D)
        ``text.embedded.weight``, floats or 16-bit as stored.
    labels : (T)
    weights : (T)
    cap : float or None
        The final soft-cap.
    chunk : int

    Returns
    -------
    loss : float
        sum of weights * -log p(label); 0 where there are no rows.
    d_x : (T, D)
    d_table : HeadGradient
        (V, D) when multiplied out.

    Notes
    -----
    Two passes: one sums exponentials, as Milakov & Gimelshein 2018, alg. 3; one goes back.
    Reference: Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", sec. 4.
    """
    check_labels(labels, table.shape[0])
    weights = weights.astype(x.dtype)
    wanted = others = np.full_like(x[:, 0], -np.inf)
    for start, _, scores in chunks(x, table, cap, chunk):
        part_others, part_wanted = apart(scores, labels, start)
        others = np.logaddexp(others, log_sum(part_others))
        wanted = np.maximum(wanted, part_wanted)
    loss, scale, d_label = surprise(others, wanted)
    d_table = HeadGradient(x, table, labels, cap, chunk, scale, d_label, weights)
    d_x = np.zeros_like(x)
    for _, part, d_product in d_table.chunks():
        d_x += d_product @ part
    return float(np.sum(loss * weights)), d_x, d_table


def chunks(x, table, cap, chunk):
    """Score rows (T, D) by some words at a time: yields the first word, their rows of the table, capped scores."""
    for start in range(0, table.shape[0], chunk):
        part = half.widen(table[start : start + chunk]).astype(x.dtype, copy=False)
        product = x @ part.T
        yield start, part, product if cap is None else ops.soft_cap(product, cap, unrounded)


@dataclass(frozen=True)
class HeadGradient:
    """The gradient of the table by its use as head, not yet multiplied: chunks are scored again when it is wanted.

    Parameters
    ----------
    x, table, labels, cap, chunk, weights
        As in :func:`cross_entropy`.
    scale, d_label : (T)
        From :func:`surprise`.
    """

    x: Any
    table: Any
    labels: Any
    cap: float | None
    chunk: int
    scale: Any
    d_label: Any
    weights: Any

    def chunks(self):
        """Yield the first word, their rows of the table, and the gradient (T, chunk) of the products."""
        for start, part, scores in chunks(self.x, self.table, self.cap, self.chunk):
            d_scores = np.exp(scores - self.scale[:, None])
            rows = np.flatnonzero((self.labels >= start) & (self.labels < start + len(part)))
            d_scores[rows, self.labels[rows] - start] = self.d_label[rows]
            d_scores *= self.weights[:, None]
            yield start, part, d_scores if self.cap is None else backward.soft_cap(d_scores, scores, self.cap)

    def whole(self):
        """Give the whole gradient, (V, D)."""
        d_table = np.empty(self.table.shape, dtype=self.x.dtype, like=self.x)
        for start, part, d_product in self.chunks():
            d_table[start : start + len(part)] = d_product.T @ self.x
        return d_table
