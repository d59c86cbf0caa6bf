"""The logit lens: what the model would say next if it stopped thinking after a block (nostalgebraist 2020).

The residual stream of each block goes through the final norm and the head, as if it were the last block's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from npgemma import ops, text
from npgemma.base.device import to_host
from npgemma.base.errors import InputError
from npgemma.paligemma import Model
from npgemma.show.token_table import pieces_of


def likeliest(model: Model, out, count: int = 5) -> list[tuple[str, float]]:
    """The likeliest next tokens by one vector of the residual stream.

    Parameters
    ----------
    model : Model
    out : (D)
        ``text.blocks.N.out`` at one position.
    count : int

    Returns
    -------
    tokens : list of (str, float)
        Pieces with their probability, the likeliest first.
    """
    return likeliest_of(model, out[None], count)[0]


def likeliest_of(model: Model, outs, count: int = 5) -> list[list[tuple[str, float]]]:
    """The likeliest next tokens by several such vectors, outs (L, D), of which the head is read once."""
    w = model.weights.watched_by(None).at("text")
    norm = ops.rms_norm(w.beside(outs)[None], w["norm.weight"], model.config.text.norm_eps)
    probs = to_host(ops.softmax(text.logits(norm, w, model.config.text)))[0]
    best = np.argsort(-probs, axis=-1)[:, :count]
    return [
        [(piece, float(row[id])) for piece, id in zip(pieces_of(model.config, model.tokenizer, ids), ids, strict=True)]
        for row, ids in zip(probs, best, strict=True)
    ]


def lens(model: Model, seen: Any, row: int = -1, count: int = 5) -> str:
    """Say what the model would say next, by what leaves a block, or each of several.

    Parameters
    ----------
    model : Model
    seen : mapping of str to array, or array (..., D)
        A trace with ``text.blocks.N.out`` (``npgemma.trace(..., only="text.blocks.*.out")``), or one such tensor as it
        is in a debugger; ``middle`` and ``text.spliced`` are of the residual stream too.
    row : int
        Which position, of those that are there, of the first prompt.
    count : int
        How many tokens.

    Returns
    -------
    lines : str
        A line for each block that a trace holds, or one for an array.

    Raises
    ------
    InputError
        If there is no such tensor, or no such row.
    """
    if isinstance(seen, Mapping):
        names = [f"text.blocks.{n}.out" for n in range(model.config.text.depth) if f"text.blocks.{n}.out" in seen]
        if not names:
            missing = "the trace holds no text.blocks.N.out; keep them: only='text.blocks.*.out'"
            raise InputError(missing, argument="seen")
        return "\n".join(f"{name:20} {lens(model, seen[name], row, count)}" for name in names)
    D = model.config.text.width
    if getattr(seen, "ndim", 0) < 1 or seen.shape[-1] != D:
        raise InputError(f"came as {getattr(seen, 'shape', type(seen).__name__)}; want a trace, or an array of rows of "
                         f"{D} numbers, such as text.blocks.0.out (B, T, {D})", argument="seen")
    rows = seen.reshape(-1, *seen.shape[-2:])[0] if seen.ndim > 1 else seen[None]
    if not -len(rows) <= row < len(rows):
        raise InputError(f"came as {row}; want one of 0..{len(rows) - 1}", argument="row")
    return "  ".join(f"{piece} {prob:.2f}" for piece, prob in likeliest(model, rows[row], count))
