import numpy as np

from npgemma import masks, ops


def drawn(mask):
    return mask[0].astype(int).tolist()


def test_prefix_sees_all_of_itself_and_suffix_sees_back():
    mask = masks.prefix_lm(np.array([[0, 0, 1, 1]]), np.ones((1, 4), int), 4)
    assert drawn(mask) == [[1, 1, 0, 0],
                           [1, 1, 0, 0],
                           [1, 1, 1, 0],
                           [1, 1, 1, 1]]


def test_padding_is_never_looked_at_wherever_it_lies():
    token_types = np.array([[0, 0, 0, 1]])
    assert drawn(masks.prefix_lm(token_types, np.array([[0, 1, 1, 1]]), 4)) == [[0, 1, 1, 0],
                                                                               [0, 1, 1, 0],
                                                                               [0, 1, 1, 0],
                                                                               [0, 1, 1, 1]]
    assert drawn(masks.prefix_lm(token_types, np.array([[1, 1, 0, 1]]), 4))[3] == [1, 1, 0, 1]


def test_a_prefix_of_one_is_causal():
    mask = masks.prefix_lm(np.array([[0, 1, 1]]), np.ones((1, 3), int), 3)
    assert drawn(mask) == np.tril(np.ones((3, 3), int)).tolist()


def test_queries_are_the_last_positions():
    whole = masks.prefix_lm(np.array([[0, 0, 1, 1, 1]]), np.ones((1, 5), int), 5)
    last = masks.prefix_lm(np.array([[0, 0, 1, 1, 1]]), np.ones((1, 5), int), 2)
    assert np.array_equal(last, whole[:, 3:])


def test_the_window_includes_the_token_itself_and_spares_the_prefix():
    mask = masks.sliding_prefix_lm(np.array([[0, 0, 0, 1, 1, 1]]), np.ones((1, 6), int), 6, window=2)
    assert drawn(mask) == [[1, 1, 1, 0, 0, 0],
                           [1, 1, 1, 0, 0, 0],
                           [1, 1, 1, 0, 0, 0],
                           [0, 0, 1, 1, 0, 0],
                           [0, 0, 0, 1, 1, 0],
                           [0, 0, 0, 0, 1, 1]]


def test_a_window_of_one_sees_itself_and_a_wide_one_sees_all():
    token_types, real = np.array([[1, 1, 1]]), np.ones((1, 3), int)
    assert drawn(masks.sliding_prefix_lm(token_types, real, 3, window=1)) == np.eye(3, dtype=int).tolist()
    wide = masks.sliding_prefix_lm(token_types, real, 3, window=3)
    assert np.array_equal(wide, masks.prefix_lm(token_types, real, 3))


def test_the_window_counts_real_tokens_so_that_padding_between_takes_no_room():
    token_types = np.array([[0, 0, 0, 0, 1]])
    real = np.array([[1, 1, 0, 0, 1]])
    assert drawn(masks.sliding_prefix_lm(token_types, real, 1, window=2)) == [[0, 1, 0, 0, 1]]


def test_hidden_scores_get_no_weight_and_a_row_without_keys_the_same_each():
    scores = np.array([[1.0, 9.0, 1.0], [3.0, 1.0, 2.0]])[None, None, None]
    mask = np.array([[[True, False, True], [False, False, False]]])
    probs = ops.softmax(masks.hide(scores, mask))
    assert probs[0, 0, 0].tolist() == [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]]


def test_a_score_of_exactly_zero_counts():
    scores, mask = np.zeros((1, 1, 1, 1, 2)), np.ones((1, 1, 2), bool)
    assert ops.softmax(masks.hide(scores, mask)).ravel().tolist() == [0.5, 0.5]


def test_image_tokens_of_the_prefix_are_places_and_generated_ones_are_not():
    ids, types = np.array([[9, 9, 3, 9]]), np.array([[0, 0, 0, 1]])
    assert masks.image_places(ids, types, 9).tolist() == [[True, True, False, False]]
    # Hugging Face 5's causal pass has no prefix at all.
    assert masks.image_places(ids, types * 0 + 1, 9).tolist() == [[True, True, False, True]]
