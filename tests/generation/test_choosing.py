"""Draws follow their probabilities, and the same seed gives the same numbers everywhere."""

import math

import numpy as np
import pytest

from npgemma.generation.choosing import Draws, draw, likeliest
from npgemma.generation.processors import softmax

SCORES = np.array([0.3, -1.0, 2.0, -np.inf, 1.1, -3.0, 0.0, -np.inf], dtype=np.float32)


def chi_square_tail(statistic, freedom):
    """Probability of a larger chi-square, for an even number of degrees of freedom."""
    half = statistic / 2
    return math.exp(-half) * sum(half**k / math.factorial(k) for k in range(freedom // 2))


@pytest.mark.parametrize("scores", (SCORES[:-1], np.zeros(9, np.float32), np.array([9, 0, 0], np.float64)))
def test_ten_thousand_draws_follow_the_probabilities(scores):
    stream = Draws(seed=1, number=0)
    n = 10_000
    counts = np.bincount([one(scores, stream.next()) for _ in range(n)], minlength=len(scores))
    expected = n * softmax(scores[None].astype(np.float64))[0]
    possible = expected > 0
    assert not counts[~possible].any()
    statistic = float(np.sum((counts[possible] - expected[possible]) ** 2 / expected[possible]))
    freedom = int(possible.sum()) - 1
    assert chi_square_tail(statistic, freedom + freedom % 2) > 1e-6


def one(scores, number):
    """Draw from one row."""
    return int(draw(scores[None], np.array([number]))[0])


def test_the_tail_is_that_of_the_tables():
    # Five percent of chi-square with 4 degrees of freedom lie above 9.488.
    assert chi_square_tail(9.488, 4) == pytest.approx(0.05, abs=1e-4)


def test_a_number_picks_the_token_whose_share_it_falls_into():
    scores = np.log(np.array([0.25, 0.5, 0.25]))
    assert [one(scores, number) for number in (0.0, 0.24, 0.26, 0.74, 0.76)] == [0, 0, 1, 1, 2]


def test_the_first_and_the_last_number_draw_nothing_impossible():
    largest = 1 - 2.0**-53
    for scores in (SCORES, SCORES[::-1], np.concatenate([np.full(257_216, 0.1, np.float32), SCORES])):
        assert scores[one(scores, largest)] > -np.inf
        assert scores[one(scores, 0.0)] > -np.inf


def test_numbers_follow_from_seed_and_answer_alone():
    first = [Draws(5, 0).next() for _ in range(2)]
    assert first[0] == first[1]
    assert len({Draws(seed, number).next() for seed in (5, 6) for number in (0, 1)}) == 4


def test_numbers_are_those_of_numpys_generator():
    stream = Draws(5, 2)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(5, spawn_key=(2,))))
    assert [stream.next() for _ in range(20)] == generator.random(20).tolist()


def test_the_likeliest_is_the_first_of_equals():
    assert likeliest(np.array([[1.0, 3.0, 3.0], [4.0, 3.0, 4.0]])).tolist() == [1, 0]
