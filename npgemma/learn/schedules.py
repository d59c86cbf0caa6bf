"""What stands around an optimiser: how large a step is, what bounds it, what is averaged, what is left alone."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from npgemma.base.errors import InputError
from npgemma.tracing.selection import as_patterns, check_patterns, matches


def warm_up(step: int, length: int) -> float:
    """The part of the full rate at a step, counted from 0: up in a straight line to 1."""
    return min(1.0, (step + 1) / max(length, 1))


def cosine(step: int, steps: int, length: int) -> float:
    """After the warm-up, down to 0 along half a cosine.  Loshchilov & Hutter 2017, eq. 5."""
    gone = max(0.0, (step - length) / max(steps - length, 1))
    return warm_up(step, length) * 0.5 * (1.0 + math.cos(math.pi * min(gone, 1.0)))


def linear(step: int, steps: int, length: int) -> float:
    """After the warm-up, down to 0 in a straight line."""
    left = (steps - step) / max(steps - length, 1)
    return warm_up(step, length) * min(1.0, max(0.0, left))


def constant(step: int, steps: int, length: int) -> float:
    """After the warm-up, as it is."""
    return warm_up(step, length)


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"cosine": cosine, "linear": linear, "constant": constant}


def norm_of(gradients: Mapping[str, Any]) -> float:
    """The length of all gradients as one vector; sums in float64."""
    return math.sqrt(sum(float(np.sum(np.square(d, dtype=np.float64))) for d in gradients.values()))


def clip(gradients: Mapping[str, Any], limit: float) -> tuple[dict[str, Any], float]:
    """Shorten all gradients alike where together they are longer than ``limit``; gives them and their first length.

    Notes
    -----
    Pascanu et al. 2013, alg. 1.  Reference: torch.nn.utils.clip_grad_norm_.
    """
    norm = norm_of(gradients)
    part = limit / (norm + 1e-6)
    return {name: d * part if part < 1.0 else d for name, d in gradients.items()}, norm


def average(averages: Mapping[str, Any], weights: Mapping[str, Any], keep: float) -> dict[str, Any]:
    """Move running averages towards the weights: keep * average + (1 - keep) * weight.  Polyak & Juditsky 1992."""
    return {name: averages[name] + (1.0 - keep) * (weight - averages[name]) for name, weight in weights.items()}


def chosen(names: Iterable[str], only: str | Sequence[str] = (), freeze: str | Sequence[str] = ()) -> list[str]:
    """Give the names of what is trained: those that fit ``only``, or all, without those that fit ``freeze``.

    Raises
    ------
    InputError
        If a pattern fits nothing, or nothing is left.
    """
    known = list(names)
    wanted, frozen = as_patterns(only), as_patterns(freeze)
    check_patterns([*wanted, *frozen], known)
    left = [name for name in known if (not wanted or matches(name, wanted)) and not matches(name, frozen)]
    if not left:
        raise InputError(f"{', '.join(frozen)} leaves no weight to train; freeze less", argument="freeze")
    return left
