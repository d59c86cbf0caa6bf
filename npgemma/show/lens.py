"""The logit lens: what the model would say next if it stopped thinking after a block (nostalgebraist 2020).

The residual stream of each block goes through the final norm and the head, as if it were the last block's.
"""

from collections.abc import Mapping

import numpy as np

from npgemma import ops, text
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
    norm = ops.rms_norm(outs[None], w["norm.weight"], model.config.text.norm_eps)
    probs = ops.softmax(text.logits(norm, w, model.config.text))[0]
    best = np.argsort(-probs, axis=-1)[:, :count]
    return [
        [(piece, float(row[id])) for piece, id in zip(pieces_of(model.config, model.tokenizer, ids), ids, strict=True)]
        for row, ids in zip(probs, best, strict=True)
    ]


def lens_line(model: Model, out, count: int = 5) -> str:
    """The likeliest next tokens as one line."""
    return "  ".join(f"{piece} {prob:.2f}" for piece, prob in likeliest(model, out, count))


def lens(model: Model, trace: Mapping, row: int = -1, count: int = 5) -> str:
    """A line for each block that a trace holds.

    Parameters
    ----------
    model : Model
    trace : mapping of str to array
        With ``text.blocks.N.out``; ``npgemma.trace(..., only="text.blocks.*.out")``.
    row : int
        Which of the kept positions.
    count : int
    """
    lines = []
    for n in range(model.config.text.depth):
        name = f"text.blocks.{n}.out"
        if name in trace:
            lines.append(f"{name:20} {lens_line(model, trace[name][0, row], count)}")
    return "\n".join(lines)
