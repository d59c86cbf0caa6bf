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


def likeliest(scores):
    """Give the id of each row's highest score, the lowest id among equals: scores (B, V) -> (B)."""
    return np.argmax(scores, axis=-1)


def draw(scores, numbers):
    """Give the id at ``numbers`` of the way through each row's probabilities.

    Parameters
    ----------
    scores : (B, V)
        -inf for what cannot be drawn.
    numbers : (B)
        In [0, 1), uniform.

    Returns
    -------
    ids : (B)
        Each with the probability that its score gives it.
    """
    probs = softmax(scores)
    reached = np.cumsum(probs, axis=-1, dtype=np.float64)
    # The last sum is not exactly 1. A number below 1 times it stays below it, and what is impossible adds nothing: a
    # card's sums, which are added in parts, may grow there all the same.
    return np.argmax((reached > numbers[:, None] * reached[:, -1:]) & (probs > 0.0), axis=-1)
