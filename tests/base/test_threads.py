import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from npgemma.base import products, threads


@pytest.fixture(autouse=True)
def unread_variables(monkeypatch):
    """No variable is set, nothing is remembered of those that were; the threads of a test end with it."""
    for name in (threads.OUR_VARIABLE, *threads.BLAS_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    remembered = (threads.num_threads, threads.blas_threads, threads.pool)
    for function in remembered:
        function.cache_clear()
    yield
    monkeypatch.undo()
    for function in remembered:
        function.cache_clear()


def use(monkeypatch, number):
    """Let ``number`` threads share the work, from now on."""
    monkeypatch.setattr(threads, "num_threads", lambda: number)


def test_threads_follow_what_we_or_blas_were_told(monkeypatch):
    assert threads.num_threads.__wrapped__() == threads.processors() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads.num_threads.__wrapped__() == 5
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "\u00b2")
    assert threads.num_threads.__wrapped__() == 5
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert threads.num_threads.__wrapped__() == 1 and threads.blas_threads.__wrapped__() == 1
    monkeypatch.setenv("NPGEMMA_NUM_THREADS", "3")
    assert threads.num_threads.__wrapped__() == 3


BEFORE_NUMPY = """
import os, sys
from npgemma import cli
assert "numpy" not in sys.modules, "the command must set threads before NumPy is imported"
cli.main(["generate", "--help"])
print(*(os.environ.get(name, "-") for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NPGEMMA_NUM_THREADS")))
"""


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, f"1 1 {threads.processors()}"),
        ({"NPGEMMA_NUM_THREADS": "3"}, "1 1 3"),
        ({"OPENBLAS_NUM_THREADS": "2"}, "2 - -"),
        ({"OMP_NUM_THREADS": "4"}, "- 4 -"),
    ],
)
def test_the_command_gives_blas_one_thread_unless_the_user_told_it_otherwise(told, wanted):
    done = subprocess.run([sys.executable, "-c", BEFORE_NUMPY], capture_output=True, text=True, env=os.environ | told)
    assert done.stdout.splitlines()[-1] == wanted, done.stderr


def test_where_numpy_is_imported_already_nothing_is_set():
    threads.take_over()
    assert not any(name in os.environ for name in (threads.OUR_VARIABLE, *threads.BLAS_VARIABLES))


def test_every_block_is_worked_on_once_and_one_block_is_the_callers(monkeypatch):
    use(monkeypatch, 3)
    seen = []
    threads.share(10, 4, lambda piece: seen.append((piece.start, piece.stop)))
    assert sorted(seen) == [(0, 4), (4, 8), (8, 10)]
    workers = []
    threads.share(4, 4, lambda piece: workers.append(threading.get_ident()))
    assert workers == [threading.get_ident()]


def test_helpers_work_in_the_callers_context(monkeypatch):
    use(monkeypatch, 2)
    both, seen = threading.Barrier(2, timeout=10), []

    def work(piece):
        both.wait()  # one piece each
        seen.append(np.geterr()["invalid"])

    with np.errstate(invalid="call"):
        threads.share(2, 1, work)
    assert seen == ["call", "call"]


def test_what_is_shared_already_shares_nothing_further(monkeypatch):
    use(monkeypatch, 2)
    both, seen = threading.Barrier(2, timeout=10), []

    def work(piece):
        both.wait()  # one piece each: a pool of two would wait for itself
        threads.share(3, 1, lambda inner: seen.append((piece.start, inner.start, threading.get_ident())))

    threads.share(2, 1, work)
    assert sorted(one[:2] for one in seen) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert len({one[::2] for one in seen}) == 2  # each thread its own
    threads.share(2, 1, lambda piece: both.wait())  # and afterwards all share again


def test_a_failure_in_a_helper_thread_reaches_the_caller(monkeypatch):
    use(monkeypatch, 2)
    caller = threading.get_ident()
    done = threading.Event()

    def work(rows):
        if threading.get_ident() != caller:
            done.set()
            raise MemoryError("in a helper")
        # The caller's first block waits, so that the helper has one.
        assert done.wait(10)

    with pytest.raises(MemoryError, match="in a helper"):
        threads.share(8, 1, work)


def test_an_interrupted_caller_lets_no_further_block_begin(monkeypatch):
    use(monkeypatch, 2)
    caller, busy, go_on = threading.get_ident(), threading.Event(), threading.Event()
    begun = []

    def work(rows):
        begun.append(rows)
        if threading.get_ident() == caller:
            assert busy.wait(10)
            raise KeyboardInterrupt
        busy.set()
        assert go_on.wait(10)

    with pytest.raises(KeyboardInterrupt):
        threads.share(8, 1, work)
    go_on.set()
    threads.pool().shutdown()  # waits for the helper
    assert len(begun) == 2, "no block is begun behind the interrupt"


AT_THE_END = """
import threading
import numpy as np
from npgemma.base import products, threads

threads.num_threads = lambda: 2

def work():
    threading.main_thread().join()
    print(products.linear(np.ones((1, 1024), np.float32), np.full((4000, 1024), 0x3F80, np.uint16)).min())

threading.Thread(target=work).start()
"""


def test_a_thread_that_outlives_the_main_one_still_multiplies():
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1024.0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(products, "ALONE", 0)
    use(monkeypatch, 2)
    weight = np.ones((40, 10), np.float32)
    x = np.ones((1, 10), np.float32)
    products.linear(x, weight)
    child = multiprocessing.get_context("fork").Process(target=products.linear, args=(x, weight))
    child.start()
    child.join(20)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0
