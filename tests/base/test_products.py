import threading

import numpy as np
import pytest

from npgemma.base import half, products, threads

KINDS = ["float32", "bfloat16", "float16"]


def bf16_bits(x):
    """Cut float32 to its upper half: the bits of a bfloat16."""
    return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)


def stored(matrix, kind):
    """A float32 matrix as ``kind`` keeps it."""
    if kind == "bfloat16":
        return bf16_bits(matrix)
    return matrix.astype(kind)


@pytest.fixture(params=["BLAS has one thread", "BLAS has its threads"])
def sharing(request, monkeypatch):
    """Both ways to multiply many rows."""
    monkeypatch.setattr(threads, "blas_threads", lambda: 1 if request.param == "BLAS has one thread" else 2)


# One row and a few take dot products, many take BLAS; 20000 columns are cut into pieces, 4099 is a prime.
@pytest.mark.parametrize("num_rows", [1, 12, 13, 40])
@pytest.mark.parametrize(("F", "D"), [(1, 2), (7, 5), (300, 6), (9, 3000), (700, 1024), (3, 20000), (3, 4099)])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_equal_the_plain_product(num_rows, F, D, kind, sharing):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_rows, D)).astype(np.float32)
    weight = stored(rng.normal(size=(F, D)).astype(np.float32), kind)
    exact = x.astype(np.float64) @ half.widen(weight).T.astype(np.float64)
    bound = D * 2.0**-24 * (np.abs(x) @ np.abs(half.widen(weight)).T)
    y = products.linear(x, weight)
    assert y.dtype == np.float32 and np.all(np.abs(y - exact) <= bound)
    assert np.all(np.abs(products.linear_plain(x, weight) - exact) <= bound)


@pytest.mark.parametrize("kind", KINDS)
def test_small_blocks_cover_every_row(monkeypatch, kind, sharing):
    small = {"ALONE": 0, "BLOCK": 64, "BLOCK_OF_ROW": 64, "BLOCK_WIDENED": 64, "TILE": 48, "TILE_BESIDE_THREADS": 48,
             "ROWS_OF_BLOCK": 3}
    for name, value in small.items():
        monkeypatch.setattr(products, name, value)
    monkeypatch.setattr(products, "BLOCK_FOR_BLAS", 200)
    rng = np.random.default_rng(0)
    weight = stored(rng.normal(size=(37, 10)).astype(np.float32), kind)
    for num_rows in (1, 30):
        x = rng.normal(size=(num_rows, 10)).astype(np.float32)
        wanted = products.linear_plain(x, weight)
        np.testing.assert_allclose(products.linear(x, weight), wanted, rtol=1e-5, atol=1e-6)


# Matrices of a released model and odd ones: rows left over from tiles and strips, widths in pieces, small ones.
ROWS_AND_WIDTHS = [(2048, 2048), (256, 2304), (300, 9216), (257, 16384), (1024, 2304), (37, 10), (5, 20000), (9, 4099)]


@pytest.mark.parametrize(("F", "D"), ROWS_AND_WIDTHS)
@pytest.mark.parametrize("kind", [*KINDS, "float64"])
def test_a_row_has_the_same_bits_whoever_stands_beside_it(F, D, kind, sharing):
    rng = np.random.default_rng(0)
    weight = stored(rng.normal(size=(F, D)).astype(np.float32), kind)
    x = rng.normal(size=(products.FEW_ROWS, D)).astype(np.float64 if kind == "float64" else np.float32)
    alone = np.concatenate([products.linear(row, weight) for row in x[:, None]])
    for batch in (2, 3, 4, 8, products.FEW_ROWS):
        assert np.array_equal(products.linear(x[:batch], weight), alone[:batch]), batch


def test_float32_and_bfloat16_give_a_step_the_same_bits():
    rng = np.random.default_rng(0)
    bits = bf16_bits(rng.normal(size=(1003, 2048)).astype(np.float32))
    x = rng.normal(size=(4, 2048)).astype(np.float32)
    assert np.array_equal(products.linear(x, bits), products.linear(x, half.widen(bits)))


@pytest.mark.parametrize("num_rows", [1, 2, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_have_the_same_bits_with_any_number_of_threads(monkeypatch, num_rows, kind):
    monkeypatch.setattr(products, "ALONE", 0)
    for name in ("BLOCK", "BLOCK_OF_ROW", "BLOCK_WIDENED"):
        monkeypatch.setattr(products, name, 640)
    rng = np.random.default_rng(0)
    weight = stored(rng.normal(size=(137, 64)).astype(np.float32), kind)
    x = rng.normal(size=(num_rows, 64)).astype(np.float32)
    found = []
    for number in (1, 2, 5):
        monkeypatch.setattr(threads, "num_threads", lambda number=number: number)
        threads.pool.cache_clear()
        found.append(products.linear(x, weight))
    threads.pool.cache_clear()
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_parts_are_as_many_for_each_thread_and_cover_all_rows(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    # The matrices of PaliGemma 1 and 2 3B: 16384, 2048, 9216, 2304, 4304, 1152 and 257152 rows.
    cut = {F: products.even_parts(F, 1024, 8) for F in (16384, 2048, 9216, 2304, 4304, 1152, 257152, 3)}
    assert {F: -(-F // part) for F, part in cut.items()} == {
        16384: 16, 2048: 2, 9216: 10, 2304: 4, 4304: 6, 1152: 2, 257152: 252, 3: 1,
    }
    assert all(part <= 1024 and part % 8 == 0 for part in cut.values())


def test_float64_stays_float64():
    rng = np.random.default_rng(0)
    for num_rows in (1, 40):
        x, weight = rng.normal(size=(num_rows, 300)), rng.normal(size=(70, 300))
        np.testing.assert_allclose(products.linear(x, weight), x @ weight.T, rtol=1e-13, atol=1e-13)


def test_a_matrix_at_an_odd_place_in_a_file_is_read_right():
    rng = np.random.default_rng(0)
    buffer = np.zeros(2 + 8 * 6 * 2, np.uint8)
    weight = buffer[2:].view(np.uint16).reshape(8, 6)
    weight[...] = bf16_bits(rng.normal(size=(8, 6)).astype(np.float32))
    x = rng.normal(size=(1, 6)).astype(np.float32)
    np.testing.assert_allclose(products.linear(x, weight), products.linear_plain(x, weight), rtol=1e-5, atol=1e-6)


def test_threads_of_the_caller_do_not_share_a_buffer(monkeypatch, sharing):
    monkeypatch.setattr(products, "BLOCK_WIDENED", 1 << 12)
    rng = np.random.default_rng(0)
    weights = [bf16_bits(rng.normal(size=(300, 64)).astype(np.float32)) for _ in range(4)]
    x = rng.normal(size=(20, 64)).astype(np.float32)
    wanted = [products.linear(x, weight) for weight in weights]
    wrong = []

    def multiply(index):
        for _ in range(50):
            if not np.array_equal(products.linear(x, weights[index]), wanted[index]):
                wrong.append(index)

    callers = [threading.Thread(target=multiply, args=(index,)) for index in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_an_interrupted_caller_leaves_its_buffer_to_the_helpers(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    weight, x = bf16_bits(np.ones((30, 4), np.float32)), np.ones((20, 4), np.float32)
    monkeypatch.setattr(threads, "blas_threads", lambda: 2)
    products.linear(x, weight)
    buffer = half.scratch((30, 4))
    monkeypatch.setattr(threads, "share", interrupt)
    with pytest.raises(KeyboardInterrupt):
        products.linear(x, weight)
    assert not np.shares_memory(half.scratch((30, 4)), buffer), "a helper may still be writing into it"


@pytest.mark.parametrize("num_rows", [1, 20])
def test_infinities_and_nan_come_through(num_rows, sharing):
    matrix = np.float32([[np.inf, 1.0], [np.nan, 1.0], [-np.inf, 1.0], [2.0, 1.0]])
    for kind in KINDS:
        y = products.linear(np.ones((num_rows, 2), np.float32), stored(matrix, kind))
        np.testing.assert_array_equal(y, np.tile(np.float32([np.inf, np.nan, -np.inf, 3.0]), (num_rows, 1)))


def test_results_outlive_the_buffer(sharing):
    rng = np.random.default_rng(0)
    weight = bf16_bits(rng.normal(size=(7, 5)).astype(np.float32))
    for num_rows in (1, 20):
        x = rng.normal(size=(num_rows, 5)).astype(np.float32)
        y = products.linear(x, weight)
        before = y.copy()
        products.linear(2.0 * x, weight)
        assert np.array_equal(y, before)


@pytest.mark.parametrize("heads", [((2, 3, 1), (2, 3, 1)), ((1, 1, 8), (1, 1, 1)), ((), ())])
def test_stacked_products_are_shared_without_a_change_of_bits(monkeypatch, heads):
    monkeypatch.setattr(products, "BLOCK", 1)
    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(*heads[0], 20, 7)).astype(np.float32)
    b = rng.normal(size=(*heads[1], 9, 7)).astype(np.float32).swapaxes(-1, -2)
    for number in (2, 1):
        monkeypatch.setattr(threads, "blas_threads", lambda number=number: number)
        assert np.array_equal(products.stacked(a, b), a @ b)


@pytest.mark.parametrize("num_rows", [1, 5, 30])
def test_a_product_too_small_to_share_is_the_callers_alone(monkeypatch, num_rows):
    monkeypatch.setattr(threads, "blas_threads", lambda: 1)
    monkeypatch.setattr(threads, "num_threads", lambda: 4)
    parts = []

    def share(size, at_once, work):
        parts.append(-(-size // at_once))
        work(slice(0, size))

    monkeypatch.setattr(threads, "share", share)
    D = products.ALONE // num_rows // 64
    for F in (64, 128):
        products.linear(np.ones((num_rows, D), np.float32), np.ones((F, D), np.float32))
    assert parts[0] == 1 and parts[1] > 1
