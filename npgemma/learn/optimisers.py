"""From gradients to better weights: AdamW and Muon, as equations, and what keeps their memory.

Weights that were loaded may be read-only maps of a file: nothing here writes into an array that it was given.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Newton-Schulz coefficients of Muon: the slope at 0 is steep, so that few rounds are enough (Jordan et al. 2024).
ROUNDS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


def adamw(weight, d_weight, mean, square, step, rate, beta1, beta2, eps, decay):
    """Go down the gradient's running mean, each number at its own speed.

    Parameters
    ----------
    weight, d_weight, mean, square : (...)
        ``mean`` and ``square`` are what the last call gave; zeros at first.
    step : int
        From 1.
    rate, beta1, beta2, eps, decay : float

    Returns
    -------
    weight, mean, square : (...)

    Notes
    -----
    m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2,
    w = w - rate (decay w + m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps)).  Loshchilov & Hutter 2019, alg. 2.
    Reference: torch.optim.AdamW.
    """
    mean = mean + (1.0 - beta1) * (d_weight - mean)
    square = beta2 * square + (1.0 - beta2) * np.square(d_weight)
    speed = np.sqrt(square) / math.sqrt(1.0 - beta2**step) + eps
    return weight * (1.0 - rate * decay) - rate / (1.0 - beta1**step) * mean / speed, mean, square


def muon(weight, d_weight, mean, rate, beta, decay):
    """Go down the gradient's running mean with all its directions made equally long; for matrices only.

    Parameters
    ----------
    weight, d_weight, mean : (F, D)
        ``mean`` is what the last call gave; zeros at first.
    rate, beta, decay : float

    Returns
    -------
    weight, mean : (F, D)

    Notes
    -----
    The step's root-mean-square is 0.2 rate, as AdamW's usually is, so that both can have one rate.
    Jordan et al. 2024; Liu et al. 2025, eq. 4.  Reference: torch.optim.Muon(adjust_lr_fn="match_rms_adamw").
    """
    mean = mean + (1.0 - beta) * (d_weight - mean)
    ahead = d_weight + beta * (mean - d_weight)
    length = 0.2 * math.sqrt(max(weight.shape))
    return weight * (1.0 - rate * decay) - rate * length * orthogonal(ahead), mean


def orthogonal(x):
    """Bring all singular values of a matrix near 1, by a polynomial: x (F, D)."""
    a, b, c = COEFFICIENTS
    tall = x.shape[0] > x.shape[1]
    y = x.T if tall else x
    y = y / max(float(np.sqrt(np.sum(np.square(y)))), 1e-7)
    for _ in range(ROUNDS):
        gram = y @ y.T
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    return y.T if tall else y


@dataclass(frozen=True)
class Settings:
    """The numbers of an optimiser.

    Parameters
    ----------
    beta1, beta2, eps : float
        AdamW's.
    decay : float
        Part of a matrix inside a block that is forgotten at each step, times the rate.  Nothing else forgets: not
        norms and biases, and not tables, whose rows would fade where their token is rare.
    muon : bool
        Whether matrices inside blocks take Muon's steps; everything else takes AdamW's.
    momentum : float
        Muon's.
    """

    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    decay: float = 0.0
    muon: bool = False
    momentum: float = 0.95


@dataclass
class Learner:
    """Weights that learn, and what their optimiser remembers.

    Parameters
    ----------
    weights : dict of str to array
        By name; replaced at each step, never written into.
    settings : Settings
    step : int
        Steps taken.
    memory : dict of str to array
        ``NAME/mean`` and ``NAME/square``.
    """

    weights: dict[str, Any]
    settings: Settings = Settings()
    step: int = 0
    memory: dict[str, Any] = field(default_factory=dict)

    def learn(self, gradients: Mapping[str, Any], rate: float, each: Callable[..., Iterable[Any]] = map) -> None:
        """Take one step down the gradients; a weight without one stays as it is.

        ``each`` is a pool's ``map`` where weights may move at the same time: none of them looks at another.
        """
        self.step += 1
        moved = each(lambda name: self.moved(name, gradients[name], rate), gradients)
        for name, (weight, mean, *square) in zip(gradients, moved, strict=True):
            self.weights[name], self.memory[f"{name}/mean"] = weight, mean
            if square:
                self.memory[f"{name}/square"] = square[0]

    def moved(self, name: str, d_weight: Any, rate: float) -> tuple[Any, ...]:
        """A weight after this step, and what its optimiser remembers of it: its mean, and AdamW's square."""
        weight, mean, settings = self.weights[name], self.recall(name, "mean"), self.settings
        inside = weight.ndim == 2 and ".blocks." in name
        decay = settings.decay if inside else 0.0
        if settings.muon and inside:
            return muon(weight, d_weight, mean, rate, settings.momentum, decay)
        square = self.recall(name, "square")
        return adamw(
            weight, d_weight, mean, square, self.step, rate, settings.beta1, settings.beta2, settings.eps, decay
        )

    def recall(self, name: str, what: str):
        """What is remembered of a weight; zeros at first."""
        found = self.memory.get(f"{name}/{what}")
        return np.zeros_like(self.weights[name]) if found is None else found
