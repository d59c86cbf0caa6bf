import numpy as np
import pytest
from fake_device import DeviceArray

from npgemma import ops
from npgemma.base import blocks


def test_equations_in_cache_have_the_bits_of_each_row_alone():
    x = np.random.default_rng(0).normal(size=(2, 35, 3000)).astype(np.float32)
    for equation, whole_rows in ((ops.gelu, False), (ops.softmax, True)):
        rows = np.stack([[equation(row) for row in group] for group in x])
        assert np.array_equal(blocks.in_cache(equation, x, whole_rows), rows)


def test_pieces_cover_every_row_once_and_leave_a_gpu_its_one_launch():
    x = np.zeros((100, blocks.IN_CACHE // 7), np.float32)
    sizes = []
    blocks.in_cache(lambda rows: sizes.append(rows.shape[0]) or rows, x)
    assert sorted(sizes) == [2] + [7] * 14  # in any order: threads share them
    blocks.in_cache(lambda rows: sizes.append(rows.shape[0]) or rows, DeviceArray(x))
    assert sizes[-1] == 100


def test_gelu_does_not_mind_how_numbers_lie_in_memory():
    def gelu(x):
        return blocks.in_cache(ops.gelu, x, whole_rows=False)

    x = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    wanted = gelu(x)
    for axes in ((0, 2, 1), (2, 1, 0), (1, 0, 2)):
        lying = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
        assert np.array_equal(gelu(lying), wanted)
    apart = np.repeat(x, 2, axis=1)
    assert np.array_equal(gelu(apart[:, ::2]), wanted)
    assert np.array_equal(gelu(x[::-1, :, ::-1]), wanted[::-1, :, ::-1])
    assert np.array_equal(gelu(np.broadcast_to(x[:, :1], x.shape)), np.broadcast_to(wanted[:, :1], x.shape))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_a_product_in_pieces_equals_the_whole_one(size):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 4, 3, 5, 6)), rng.normal(size=(2, 4, 1, 6, 7))
    in_pieces = blocks.product(queries, keys, "bkgth", "t", size)
    np.testing.assert_allclose(in_pieces, queries @ keys, rtol=1e-12, atol=1e-14)


def test_what_is_cut_is_joined_again():
    x = np.arange(2 * 7 * 3).reshape(2, 7, 3)
    pieces = blocks.cut(x, "btd", "t", 3)
    assert [piece.shape for piece in pieces] == [(2, 3, 3), (2, 3, 3), (2, 1, 3)]
    assert np.array_equal(blocks.join(pieces, "btd", "t"), x)


def heads_of(monkeypatch, near=1, make=np.asarray):
    monkeypatch.setattr(blocks, "SCORES_NEAR", near)
    rng = np.random.default_rng(0)
    q, k, v = (make(rng.normal(size=(2, 7, heads, 4))) for heads in (6, 2, 2))
    return q, k, v, make(rng.random((2, 7, 7)) > 0.5)


def test_attention_is_cut_into_heads_and_rows_each_with_the_keys_it_reads(monkeypatch):
    q, k, v, mask = heads_of(monkeypatch)
    heads = blocks.heads_and_rows(q, k, v, mask, rows=3)
    assert [len(head) for head in heads] == [3] * 6
    for n, head in enumerate(heads):
        for (few, keys, values, seen), rows in zip(head, (slice(0, 3), slice(3, 6), slice(6, 7)), strict=True):
            assert np.array_equal(few, q[:, rows, n : n + 1]) and np.array_equal(seen, mask[:, rows])
            assert np.array_equal(keys, k[:, :, n // 3 : n // 3 + 1])
            assert np.array_equal(values, v[:, :, n // 3 : n // 3 + 1])
    assert [seen for *_, seen in blocks.heads_and_rows(q, k, v, None, rows=3)[0]] == [None] * 3


def test_small_scores_one_query_and_a_gpus_stay_whole(monkeypatch):
    q, k, v, mask = heads_of(monkeypatch, near=2 * 6 * 7 * 7)
    assert [len(head) for head in blocks.heads_and_rows(q, k, v, mask, rows=7)] == [1]
    q, k, v, mask = heads_of(monkeypatch)
    assert [len(head) for head in blocks.heads_and_rows(q[:, :1], k, v, mask[:, :1], rows=7)] == [1]
    q, k, v, mask = heads_of(monkeypatch, make=DeviceArray)
    assert [len(head) for head in blocks.heads_and_rows(q, k, v, mask, rows=3)] == [3]


@pytest.mark.parametrize("blas", [1, 2])
def test_pieces_of_attention_are_joined_in_their_order(monkeypatch, blas):
    monkeypatch.setattr(blocks.threads, "blas_threads", lambda: blas)
    monkeypatch.setattr(blocks.threads, "num_threads", lambda: 2)
    monkeypatch.setattr(blocks, "SCORES_NEAR", 1)
    x = np.arange(2 * 7 * 24.0).reshape(2, 7, 24)

    def attend(q, k, v, mask):
        B, T, N, H = q.shape
        return q.reshape(B, T, N * H)

    q = x.reshape(2, 7, 6, 4)
    pieces = blocks.heads_and_rows(q, q[:, :, :2], q[:, :, :2], None, rows=3)
    assert np.array_equal(blocks.attended(pieces, attend), x)
