import numpy as np
import pytest
from random_models import GENERATIONS, PALIGEMMA_2, random_arrays

from npgemma import attention, rotary
from npgemma.base import cache
from npgemma.base.errors import InputError
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights

TEXT = PALIGEMMA_2.text
B, T = 2, 7


def silent(arrays=None, observe=None):
    return Weights(arrays or {}, PRECISIONS["float64"], observe)


def random_heads(seed=0, S=T, K=TEXT.num_kv_heads):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(B, S, heads, TEXT.head_dim)) for heads in (TEXT.num_heads, K, K)]


def attend(q, k, v, mask, cfg=TEXT):
    return attention.attend(q, k, v, mask, silent(), cfg.query_scale, cfg.attn_softcap)


def test_heads_share_keys_in_neighbouring_groups():
    q, k, v = random_heads()
    group = TEXT.num_heads // TEXT.num_kv_heads
    mask = np.ones((B, T, T), bool)
    # Multi-head attention with each key/value head repeated for its neighbours (repeat, not tile).
    repeated = [np.repeat(x, group, axis=2) for x in (k, v)]
    np.testing.assert_allclose(attend(q, k, v, mask), attend(q, *repeated, mask), atol=1e-14)


def test_attention_written_as_loops_gives_the_same():
    q, k, v = random_heads()
    mask = np.tril(np.ones((B, T, T), bool))
    expected = np.zeros((B, T, TEXT.num_heads, TEXT.head_dim))
    for b, t, n in np.ndindex(B, T, TEXT.num_heads):
        keys, values = k[b, : t + 1, n // 3], v[b, : t + 1, n // 3]
        scores = 0.9 * np.tanh(keys @ q[b, t, n] / 5**0.5 / 0.9)
        probs = np.exp(scores) / np.exp(scores).sum()
        expected[b, t, n] = probs @ values
    np.testing.assert_allclose(attend(q, k, v, mask), expected.reshape(B, T, -1), atol=1e-14)


def test_what_masked_keys_hold_changes_no_bit():
    q, k, v = random_heads()
    mask = np.tril(np.ones((B, T, T), bool))
    before = attend(q, k, v, mask)
    k[:, -1], v[:, -1] = 1e30, -1e30
    assert np.array_equal(attend(q, k, v, mask)[:, :-1], before[:, :-1])


def test_permuting_keys_values_and_mask_together_changes_nothing():
    q, k, v = random_heads()
    mask = np.random.default_rng(5).random((B, T, T)) > 0.4
    mask[:, :, 0] = True
    order = np.random.default_rng(6).permutation(T)
    permuted = attend(q, k[:, order], v[:, order], mask[:, :, order])
    np.testing.assert_allclose(permuted, attend(q, k, v, mask), atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_looking_changes_no_bit_though_it_assembles_whole_scores(monkeypatch, dtype):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 3 * B * TEXT.num_heads * T)
    q, k, v = (x.astype(dtype) for x in random_heads())
    mask = np.tril(np.ones((B, T, T), bool))
    seen = {}
    precision = PRECISIONS[np.dtype(dtype).name]
    blind = attention.attend(q, k, v, mask, Weights({}, precision), TEXT.query_scale, TEXT.attn_softcap)
    looking = Weights({}, precision, seen.__setitem__)
    assert np.array_equal(attention.attend(q, k, v, mask, looking, TEXT.query_scale, TEXT.attn_softcap), blind)
    assert seen["scores"].shape == (B, 2, 3, T, T)


def test_looking_changes_no_bit_where_heads_are_taken_one_by_one():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 300, heads, 16)).astype(np.float32) for heads in (4, 2, 2))
    assert len(attention.blocks.heads_and_rows(q, k, v, None, 300)) == 4
    blind = attention.attend(q, k, v, None, Weights({}, PRECISIONS["float32"]), 0.25, 50.0)
    looking = Weights({}, PRECISIONS["float32"], lambda name, x: None)
    assert np.array_equal(attention.attend(q, k, v, None, looking, 0.25, 50.0), blind)


def test_looking_changes_no_bit_where_the_last_block_is_one_query(monkeypatch):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 160, 4, 16)).astype(np.float32) for _ in range(3))
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 159 * 4 * 160)
    blind = attention.attend(q, k, v, None, Weights({}, PRECISIONS["float32"]), 0.25, None)
    looking = Weights({}, PRECISIONS["float32"], lambda name, x: None)
    assert np.array_equal(attention.attend(q, k, v, None, looking, 0.25, None), blind)


@pytest.mark.parametrize("queries", [1, 2, 3, T])
def test_query_blocks_equal_one_block(monkeypatch, queries):
    q, k, v = random_heads()
    mask = np.tril(np.ones((B, T, T), bool))
    at_once = attend(q, k, v, mask)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", queries * B * TEXT.num_heads * T)
    np.testing.assert_allclose(attend(q, k, v, mask), at_once, atol=1e-15)


@pytest.mark.parametrize("name", GENERATIONS)
def test_zeroing_a_head_of_the_output_matrix_equals_removing_it(name):
    cfg = GENERATIONS[name]
    N, H = cfg.text.num_heads, cfg.text.head_dim
    w = Weights(random_arrays(cfg), PRECISIONS["float64"]).at("text.blocks.0.attn")
    x = np.random.default_rng(2).normal(size=(B, T, cfg.text.width))
    radians = rotary.angles(np.zeros((B, T), int) + np.arange(T), H, 1e4, np.float64)
    cos, sin = np.cos(radians), np.sin(radians)
    mask = np.ones((B, T, T), bool)
    kept = {}
    attention.attention(x, w.watched_by(kept.__setitem__), cfg.text, mask, cos, sin)
    mixed = kept[w.path + "mixed"].reshape(B, T, N, H)
    out_weight = w["out.weight"].reshape(-1, N, H)
    without_first = np.einsum("btnh,dnh->btd", mixed[:, :, 1:], out_weight[:, 1:])
    zeroed = dict(w.arrays)
    zeroed[w.path + "out.weight"] = np.where(np.arange(N)[:, None] == 0, 0, out_weight).reshape(-1, N * H)
    out, _ = attention.attention(x, Weights(zeroed, w.precision, None, w.path), cfg.text, mask, cos, sin)
    np.testing.assert_allclose(out, without_first, atol=1e-13)


def test_a_mask_that_does_not_fit_names_place_and_shapes():
    w = silent(random_arrays(PALIGEMMA_2)).at("text.blocks.3.attn")
    past = cache.append(None, *random_heads(S=4)[1:])
    with pytest.raises(InputError) as caught:
        attention.attention(np.zeros((B, T, 10)), w, TEXT, np.ones((B, T), bool), None, None, past)
    message = "text.blocks.3.attn.: mask is (2, 7), x is (2, 7, 10), past is 4; want mask (2, 7, 11)"
    assert str(caught.value) == message


def test_unobserved_scores_never_stand_in_memory_whole(monkeypatch):
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 3 * B * TEXT.num_heads * T)
    shapes = []
    softmax = attention.ops.softmax
    monkeypatch.setattr(attention.ops, "softmax", lambda x: shapes.append(x.shape) or softmax(x))
    attend(*random_heads(), np.ones((B, T, T), bool))
    assert [rows for rows, _ in shapes] == [3 * B * TEXT.num_heads, 3 * B * TEXT.num_heads, B * TEXT.num_heads]
