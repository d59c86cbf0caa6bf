import numpy as np

from npgemma.base import cache


def pieces(*lengths):
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(2, n, 3, 4)), rng.normal(size=(2, n, 3, 4))) for n in lengths]


def test_appending_joins_keys_and_values_in_order():
    first, second = pieces(3, 2)
    present = cache.append(cache.append(None, *first), *second)
    assert np.array_equal(present.keys, np.concatenate([first[0], second[0]], axis=1))
    assert np.array_equal(present.values, np.concatenate([first[1], second[1]], axis=1))


def test_a_step_writes_in_place_and_copies_nothing():
    first, second = pieces(3, 1)
    past = cache.append(None, *first)
    present = cache.append(past, *second)
    assert present.key_buffer is past.key_buffer
    assert past.length == 3 and np.array_equal(past.keys, first[0])


def test_a_second_continuation_of_one_past_leaves_the_first_alone():
    prompt, one, other = pieces(3, 2, 2)
    past = cache.append(None, *prompt)
    first = cache.append(past, *one)
    second = cache.append(past, *other)
    assert np.array_equal(first.keys, np.concatenate([prompt[0], one[0]], axis=1))
    assert np.array_equal(second.keys, np.concatenate([prompt[0], other[0]], axis=1))


def test_a_full_buffer_grows():
    prompt, long = pieces(3, 500)
    past = cache.append(None, *prompt)
    present = cache.append(past, *long)
    assert present.length == 503 and np.array_equal(present.values[:, :3], prompt[1])
    assert np.array_equal(past.keys, prompt[0])


def test_what_lies_behind_a_shared_prompt_is_reordered_where_it_lies():
    prompt, more = pieces(3, 2)
    past = cache.append(None, *(np.repeat(x[:1], 2, axis=0) for x in prompt))
    past = cache.append(past, *more)
    state = cache.State((past,), np.array([[0] * 5, [1] * 5]), np.ones((2, 5)))
    wanted = cache.take_state(state, np.array([1, 1]))
    [found] = cache.reorder_behind(state, np.array([1, 1]), 3).blocks
    assert np.array_equal(found.keys, wanted.blocks[0].keys) and np.array_equal(found.values, wanted.blocks[0].values)
    assert found.key_buffer is past.key_buffer and not np.array_equal(more[0][0], more[0][1])
    assert np.array_equal(found.keys[0, 3:], more[0][1]) and cache.append(found, *more).key_buffer is past.key_buffer
    assert cache.reorder_behind(state, [1, 0], 3).token_types[0].all()


def test_rows_are_taken_into_buffers_of_their_own():
    prompt, more = pieces(3, 1)
    past = cache.append(None, *prompt)
    taken = cache.take_rows(past, np.array([1, 1, 0]))
    assert np.array_equal(taken.keys, prompt[0][[1, 1, 0]])
    grown = cache.append(taken, *(np.repeat(x[:1], 3, axis=0) for x in more))
    assert grown.length == 4 and np.array_equal(past.keys, prompt[0])
