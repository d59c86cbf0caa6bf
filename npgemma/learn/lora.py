"""Low-rank adapters: each adapted matrix reads ``base + scale * up @ down``, and only the thin factors learn.

An adapter is a mapping of weights like any other (:mod:`npgemma.base.adapted`); a matrix's gradient, which
comes as two factors (:class:`npgemma.backward.tape.Product`), becomes the thin factors' at once and is never whole.
Hu et al. 2022, sec. 4.1.  Reference: peft, lora/layer.py.  Not supported: convolutions, embeddings, DoRA, biases.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npgemma.base.adapted import DOWN, NO_PRODUCT, UP
from npgemma.base.errors import InputError
from npgemma.base.tensors import schema
from npgemma.config import Config
from npgemma.learn.schedules import chosen


class FactorSums(dict):
    """Gradients of thin factors, each the sum of all uses of its matrix.

    Parameters
    ----------
    factors : mapping of str to array
    scale : float

    Notes
    -----
    With dW = left^T right:  d_up = scale left^T (right down^T),  d_down = scale (left up)^T right.
    """

    def __init__(self, factors: Mapping[str, Any], scale: float) -> None:
        super().__init__()
        self.factors, self.scale = factors, scale

    def wants(self, name: str) -> bool:
        """Tell whether a matrix is adapted."""
        return f"{name}/{UP}" in self.factors

    def add(self, name: str, d_weight: Any) -> None:
        """Add one use of an adapted matrix, given as the two factors of its gradient."""
        up, down = self.factors[f"{name}/{UP}"], self.factors[f"{name}/{DOWN}"]
        self.sum_up(f"{name}/{UP}", self.scale * (d_weight.left.T @ (d_weight.right @ down.T)))
        self.sum_up(f"{name}/{DOWN}", self.scale * ((d_weight.left @ up).T @ d_weight.right))

    def sum_up(self, name: str, d_factor: Any) -> None:
        """Add to a factor's gradient."""
        self[name] = d_factor if name not in self else self[name] + d_factor


def adaptable(cfg: Config) -> list[str]:
    """The matrices that an adapter may stand beside."""
    return [name for name, weight in schema(cfg).items() if weight.matrix and name not in NO_PRODUCT]


def adapted_names(cfg: Config, on: str | Sequence[str]) -> list[str]:
    """Give the matrices that fit patterns; ``text.*.attn.*`` is meant for matrices, so norms and tables are an error.

    Raises
    ------
    InputError
        If a pattern fits nothing, or only what cannot be adapted.
    """
    fitting = chosen([name.removesuffix(".weight") for name in schema(cfg) if name.endswith(".weight")], on)
    found = [name for name in adaptable(cfg) if name.removesuffix(".weight") in fitting]
    if not found:
        wanted = "want such as 'text.blocks.*.attn.q'"
        raise InputError(f"{fitting[0]} is no matrix of a product; {wanted}", argument="on")
    return found


def new_factors(cfg: Config, names: Sequence[str], rank: int, rng: np.random.Generator, dtype=np.float32):
    """Fresh factors: ``down`` uniform in 1 / sqrt(D) as peft draws it, ``up`` zero, so that nothing changes at first.

    Returns
    -------
    factors : dict of str to array
    """
    if rank < 1:
        raise InputError(f"came as {rank}; want a rank of 1 or more, such as 8", argument="lora")
    weights, factors = schema(cfg), {}
    for name in names:
        F, D = weights[name].shape
        factors[f"{name}/{DOWN}"] = rng.uniform(-(D**-0.5), D**-0.5, size=(rank, D)).astype(dtype)
        factors[f"{name}/{UP}"] = np.zeros((F, rank), dtype=dtype)
    return factors
