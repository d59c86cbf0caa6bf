import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from npgemma import ops
from npgemma.base import half


def bf16_bits(x):
    """Cut float32 to its upper half: the bits of a bfloat16."""
    return (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16)


def test_widening_reads_known_bits():
    # 0x3F80 is 1, 0xC000 is -2, 0x7F80 infinity, 0x0001 the smallest subnormal.
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001], np.uint16)
    assert half.widen(bits).tolist() == [1.0, -2.0, np.inf, 2.0**-133]
    assert half.widen(np.float16([1.5])).dtype == np.float32
    assert half.widen(np.float64([1.5])).dtype == np.float64


# One row and a few take dot products, many take BLAS; 20000 columns are cut into pieces, 4099 is a prime.
@pytest.mark.parametrize("num_rows", [1, 12, 13, 40])
@pytest.mark.parametrize(("F", "D"), [(1, 2), (7, 5), (300, 6), (9, 3000), (700, 1024), (3, 20000), (3, 4099)])
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_blocks_equal_the_plain_product(num_rows, F, D, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num_rows, D)).astype(np.float32)
    matrix = rng.normal(size=(F, D)).astype(np.float32)
    weight = bf16_bits(matrix) if kind == "bfloat16" else matrix.astype(np.float16)
    exact = x.astype(np.float64) @ half.widen(weight).T.astype(np.float64)
    bound = D * 2.0**-24 * (np.abs(x) @ np.abs(half.widen(weight)).T)
    assert np.all(np.abs(half.linear(x, weight) - exact) <= bound)
    assert np.all(np.abs(half.linear_plain(x, weight) - exact) <= bound)


def test_small_blocks_cover_every_row(monkeypatch):
    monkeypatch.setattr(half, "BLOCK", 64)
    monkeypatch.setattr(half, "BLOCK_FOR_BLAS", 200)
    rng = np.random.default_rng(0)
    weight = bf16_bits(rng.normal(size=(37, 10)).astype(np.float32))
    for num_rows in (1, 30):
        x = rng.normal(size=(num_rows, 10)).astype(np.float32)
        np.testing.assert_allclose(half.linear(x, weight), half.linear_plain(x, weight), rtol=1e-5, atol=1e-6)


def test_a_matrix_at_an_odd_place_in_a_file_is_read_right():
    rng = np.random.default_rng(0)
    buffer = np.zeros(2 + 8 * 6 * 2, np.uint8)
    weight = buffer[2:].view(np.uint16).reshape(8, 6)
    weight[...] = bf16_bits(rng.normal(size=(8, 6)).astype(np.float32))
    x = rng.normal(size=(1, 6)).astype(np.float32)
    np.testing.assert_allclose(half.linear(x, weight), half.linear_plain(x, weight), rtol=1e-5, atol=1e-6)


def test_linear_and_embed_take_stored_matrices():
    table = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    bits = bf16_bits(table)
    assert ops.embed(np.array([[1]]), bits).tolist() == [[[3.0, 4.0]]]
    assert ops.linear(np.float32([[[1.0, 1.0]]]), bits, np.float32([10, 20])).tolist() == [[[13.0, 27.0]]]


def test_threads_follow_what_blas_was_told(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert half.num_threads.__wrapped__() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert half.num_threads.__wrapped__() == 3
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "\u00b2")
    assert half.num_threads.__wrapped__() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert half.num_threads.__wrapped__() >= 1


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, threads):
    monkeypatch.setattr(half, "BLOCK", 64)
    monkeypatch.setattr(half, "num_threads", lambda: int(threads))
    half.pool.cache_clear()
    rng = np.random.default_rng(0)
    weight = bf16_bits(rng.normal(size=(37, 10)).astype(np.float32))
    x = rng.normal(size=(2, 10)).astype(np.float32)
    wanted = np.stack([np.vecdot(half.widen(weight), row) for row in x])
    assert np.array_equal(half.linear(x, weight), wanted)
    half.pool.cache_clear()


def test_a_failure_in_a_helper_thread_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(half, "num_threads", lambda: 2)
    caller = threading.get_ident()
    done = threading.Event()

    def work(rows):
        if threading.get_ident() != caller:
            done.set()
            raise MemoryError("in a helper")
        # The caller's first block waits, so that the helper has one.
        assert done.wait(10)

    with pytest.raises(MemoryError, match="in a helper"):
        half.share_rows(8, 1, work)


def test_an_interrupted_caller_leaves_its_buffer_to_the_helpers(monkeypatch):
    monkeypatch.setattr(half, "num_threads", lambda: 2)
    half.pool.cache_clear()
    caller, busy, go_on = threading.get_ident(), threading.Event(), threading.Event()
    buffer, begun = half.scratch(10), []

    def work(rows):
        begun.append(rows)
        if threading.get_ident() == caller:
            assert busy.wait(10)
            raise KeyboardInterrupt
        busy.set()
        assert go_on.wait(10)

    with pytest.raises(KeyboardInterrupt):
        half.share_rows(8, 1, work)
    assert not np.shares_memory(half.scratch(10), buffer), "a helper may still be writing into it"
    go_on.set()
    half.pool().shutdown()  # waits for the helper
    half.pool.cache_clear()
    assert len(begun) == 2, "no block is begun behind the interrupt"


def test_threads_of_the_caller_do_not_share_a_buffer(monkeypatch):
    monkeypatch.setattr(half, "BLOCK", 1 << 12)
    rng = np.random.default_rng(0)
    weights = [bf16_bits(rng.normal(size=(300, 64)).astype(np.float32)) for _ in range(4)]
    x = rng.normal(size=(20, 64)).astype(np.float32)
    wanted = [half.linear(x, weight) for weight in weights]
    wrong = []

    def multiply(index):
        for _ in range(50):
            if not np.array_equal(half.linear(x, weights[index]), wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=multiply, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


AT_THE_END = """
import threading, time
import numpy as np
from npgemma.base import half

half.num_threads = lambda: 2

def work():
    threading.main_thread().join()
    print(half.linear(np.ones((1, 1024), np.float32), np.full((4000, 1024), 0x3F80, np.uint16)).min())

threading.Thread(target=work).start()
"""


def test_a_thread_that_outlives_the_main_one_still_multiplies():
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1024.0\n", "")


@pytest.mark.parametrize("num_rows", [1, 20])
def test_infinities_and_nan_come_through(num_rows):
    matrix = np.float32([[np.inf, 1.0], [np.nan, 1.0], [-np.inf, 1.0], [2.0, 1.0]])
    for weight in (bf16_bits(matrix), matrix.astype(np.float16)):
        y = half.linear(np.ones((num_rows, 2), np.float32), weight)
        np.testing.assert_array_equal(y, np.tile(np.float32([np.inf, np.nan, -np.inf, 3.0]), (num_rows, 1)))


def test_results_outlive_the_buffer():
    rng = np.random.default_rng(0)
    weight = bf16_bits(rng.normal(size=(7, 5)).astype(np.float32))
    for num_rows in (1, 20):
        x = rng.normal(size=(num_rows, 5)).astype(np.float32)
        y = half.linear(x, weight)
        before = y.copy()
        half.linear(2.0 * x, weight)
        assert np.array_equal(y, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(half, "BLOCK", 64)
    monkeypatch.setattr(half, "num_threads", lambda: 2)
    weight = bf16_bits(np.ones((40, 10), np.float32))
    x = np.ones((1, 10), np.float32)
    half.linear(x, weight)
    child = multiprocessing.get_context("fork").Process(target=half.linear, args=(x, weight))
    child.start()
    child.join(20)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0
