"""Choosing one token of a row of scores: the likeliest, or a draw."""

import functools

import numpy as np

from npgemma.generation.processors import softmax


class Draws:
    """A stream of numbers in [0, 1) that follows from a seed and the number of the answer.

    Only PCG64's raw bits are used: NumPy promises never to change them, and makes no such promise for its
    distributions.  Each answer has a stream of its own, so that it is the same alone and in a batch.

    Parameters
    ----------
    seed : int
    number : int
        0 for the first answer to a prompt, 1 for the second, …
    """

    def __init__(self, seed: int, number: int) -> None:
        self.seed, self.number = seed, number

    @functools.cached_property
    def bits(self):
        """The generator, made at the first draw: a greedy answer need not wait for NumPy to import its own."""
        return np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(self.number,)))

    def next(self) -> float:
        """Give the next number."""
        return (int(self.bits.random_raw()) >> 11) * 2.0**-53


def likeliest(scores) -> int:
    """Give the id of the highest score, the lowest id among equals.

    Parameters
    ----------
    scores : (V)
    """
    return int(np.argmax(scores))


def draw(scores, number: float) -> int:
    """Give the id at ``number`` of the way through the probabilities.

    Parameters
    ----------
    scores : (V)
        -inf for what cannot be drawn.
    number : float
        In [0, 1), uniform.

    Returns
    -------
    id : int
        Each with the probability that its score gives it.
    """
    reached = np.cumsum(softmax(scores[None])[0], dtype=np.float64)
    # The last sum is not exactly 1. A number below 1 times it stays below it, and what is impossible adds nothing,
    # so that no number falls there.
    return int(np.searchsorted(reached, number * reached[-1], side="right"))
