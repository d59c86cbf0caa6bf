"""Memory that is asked for again and again: kept, where the C library would give it back to the system each time."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h), and what they are set to.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
AT_MOST = 2**31 - 1
# Larger arrays are still given back: a step of a model of billions needs few of them at a time.
KEPT = 1 << 25


def keep_memory() -> None:
    """Keep freed memory for the next array; does nothing where the C library is not glibc.

    A step of training makes and drops the same arrays as the last.  By its own choice glibc returns them to the system,
    which gives empty pages back one by one: a step of the box's model spent a tenth to a third of its time there.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ARENA_MAX, 1)  # a heap for each thread would give memory back after all
        mallopt(MMAP_THRESHOLD, KEPT)
        mallopt(TRIM_THRESHOLD, AT_MOST)
