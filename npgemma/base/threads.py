"""Who shares the work of a product: BLAS's threads, or ours.  Host memory only.

BLAS cuts a product into equal parts and waits, spinning, for its slowest thread: on a machine that is busy with other
work that takes several times as long, and a small product never gains by it.  Our threads take block after block of a
product (NumPy lets go of the interpreter in its loops), so that one which the system holds up holds up nobody; a
product of one block is the caller's alone.  How work is cut is a question of its size and of the number of threads,
never of the load: bits must not depend on it.

The command gives BLAS one thread and all the others to us, before NumPy is imported; a program that imports NumPy first
can do the same by the two variables, or leave its many-row products to BLAS's threads.
"""

import contextlib
import contextvars
import functools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from npgemma.base.errors import InputError

# What BLAS is told by: OpenBLAS, and those built with OpenMP or like MKL.
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
OUR_VARIABLE = "NPGEMMA_NUM_THREADS"

# Of each thread: whether it works on a piece of what is shared.
HERE = threading.local()


def take_over() -> None:
    """Tell BLAS to run on one thread and us on all processors, unless the user told BLAS, or NumPy is there already."""
    if "numpy" in sys.modules or any(os.environ.get(name) for name in BLAS_VARIABLES):
        return
    os.environ.setdefault(OUR_VARIABLE, str(processors()))
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))


def use(count: int) -> None:
    """Share products among so many threads of ours, before the first product.

    Raises
    ------
    InputError
        If there is none, or BLAS was told to run on several of its own.
    """
    if count < 1:
        raise InputError(f"came as {count}; want 1 or more", argument="threads")
    if blas_threads() != 1:
        raise InputError(f"{' or '.join(BLAS_VARIABLES)} rules the threads; unset it, or leave this out", "threads")
    os.environ[OUR_VARIABLE] = str(count)
    num_threads.cache_clear()
    pool.cache_clear()


def told(names) -> int | None:
    """The number that the first of some variables gives, if one gives a number."""
    for name in names:
        value = os.environ.get(name, "")
        if value.isascii() and value.isdecimal() and int(value) > 0:
            return int(value)
    return None


@functools.cache
def blas_threads() -> int:
    """Threads that BLAS has: what it was told, or a thread a processor; where it has one, we share products."""
    return told(BLAS_VARIABLES) or processors()


@functools.cache
def num_threads() -> int:
    """As many as we were told to use, or BLAS was, or as there are processors to run on."""
    return told([OUR_VARIABLE, *BLAS_VARIABLES]) or processors()


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(size, at_once, work) -> None:
    """Run ``work(slice)`` on ``at_once`` of ``size`` after the other: each thread, the caller's too, takes the next.

    All of them in the caller's context: what its ``np.errstate`` is silent about, no helper warns of.  Work that is
    shared already shares nothing further: each thread does its own.

    Parameters
    ----------
    size, at_once : int
    work : callable
    """
    cuts = [slice(start, min(start + at_once, size)) for start in range(0, size, at_once)]
    blocks = iter(cuts)
    if getattr(HERE, "shares", False):
        for piece in blocks:
            work(piece)
        return

    def take():
        HERE.shares = True
        try:
            for piece in blocks:
                work(piece)
        finally:
            HERE.shares = False

    helpers = []
    try:
        with contextlib.suppress(RuntimeError):  # When the interpreter ends, no thread starts: the caller does it all.
            for _ in range(min(num_threads(), len(cuts)) - 1):
                helpers.append(pool().submit(contextvars.copy_context().run, take))
        take()
        for helper in helpers:
            helper.result()
    except BaseException:  # Ctrl-C among others: no helper begins another block.
        for _ in blocks:
            pass
        raise


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads that help the caller's, started at the first product that is shared."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="npgemma")


# A forked child has none of the threads; Windows does not fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)
