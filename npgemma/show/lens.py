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
    w = model.weights.watched_by(None).at("text")
    norm = ops.rms_norm(out[None, None], w["norm.weight"], model.config.text.norm_eps)
    scores = text.logits(norm, w, model.config.text)
    probs = ops.softmax(scores)[0, 0]
    best = np.argsort(-probs)[:count]
    pieces = pieces_of(model.config, model.tokenizer, best)
    return [(piece, float(prob)) for piece, prob in zip(pieces, probs[best], strict=True)]


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
