"""Each equation between logits and choice, on rows that a reader can check by eye."""

import numpy as np
import pytest

from npgemma.base.errors import InputError
from npgemma.generation import processors

NO = -np.inf


def row(*values):
    return np.array([values], dtype=np.float32)


def test_penalty_divides_what_is_positive_and_multiplies_what_is_negative():
    assert processors.penalise(row(4, -4, 4, -4), [[0, 1, 1]], 2.0).tolist() == [[2, -8, 4, -4]]


def test_penalty_passes_over_image_tokens_beyond_the_vocabulary():
    assert processors.penalise(row(4, 4), [[1, 2, 99]], 2.0).tolist() == [[4, 2]]


def test_forbidden_ids_cannot_be_chosen():
    assert processors.forbid(row(1, 2, 3), [2, 7]).tolist() == [[1, 2, NO]]


def test_restriction_leaves_the_allowed_ids_of_each_row():
    scores = np.concatenate([row(1, 2, 3), row(4, 5, 6)])
    assert processors.restrict(scores, [{0, 2}, [1]]).tolist() == [[1, NO, 3], [NO, 5, NO]]


def test_restriction_holds_where_all_allowed_ids_were_forbidden():
    assert processors.restrict(row(NO, 2, NO), [[0, 2]]).tolist() == [[0, NO, 0]]


def test_top_k_keeps_k_and_what_equals_the_last_of_them():
    assert processors.top_k(row(1, 3, 2, 0), 2).tolist() == [[NO, 3, 2, NO]]
    assert processors.top_k(row(1, 3, 1, 0), 2).tolist() == [[1, 3, 1, NO]]


def test_top_p_keeps_the_fewest_that_reach_p():
    scores = np.log(row(0.5, 0.125, 0.25, 0.125))
    kept = {p: np.isfinite(processors.top_p(scores, p))[0].tolist() for p in (0.4, 0.6, 0.8)}
    assert kept == {
        0.4: [True, False, False, False],
        0.6: [True, False, True, False],
        0.8: [True, False, True, True],  # of equals, the first in order goes first
    }


def test_top_p_always_keeps_the_likeliest():
    assert np.isfinite(processors.top_p(row(0, 0, 0, 0), 1e-9)).sum() == 1


def test_min_p_is_a_share_of_the_likeliest():
    scores = np.log(row(0.5, 0.25, 0.2, 0.05))
    assert np.isfinite(processors.min_p(scores, 0.5))[0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("equation", (processors.top_p, processors.min_p, lambda x, p: processors.top_k(x, 2)))
def test_scores_keep_their_dtype_and_arguments_stay_as_they_were(equation):
    for dtype in (np.float32, np.float64):
        scores = row(1, 2, 3, NO).astype(dtype)
        before = scores.copy()
        assert equation(scores, 0.5).dtype == dtype
        assert np.array_equal(scores, before)


def test_log_softmax_of_large_logits_is_finite():
    assert processors.log_softmax(row(1000, 1000, NO)).tolist() == [
        [pytest.approx(-np.log(2)), pytest.approx(-np.log(2)), NO]
    ]


@pytest.mark.parametrize(
    "given, message",
    (
        ([-1], r"allowed: gave ids in \[-1, -1\]; want ids in 0..2"),
        ([0, 3], r"allowed: gave ids in \[0, 3\]"),
        ([1.5], r"allowed: gave \[1.5\]; want ids, whole numbers"),
        ([True], "allowed: gave"),
        ([], r"allowed: gave \[\]; want ids, whole numbers, at least one"),
        (None, "allowed: gave None; want a list of ids"),
        ([2**63], "allowed: gave ids in"),
        ([2**64], "allowed: gave"),
        (["a"], "allowed: gave"),
        ([[0]], "allowed: gave"),
    ),
)
def test_what_a_callback_gives_is_held_against_the_vocabulary(given, message):
    with pytest.raises(InputError, match=message):
        processors.restrict(row(1, 2, 3), [given])
