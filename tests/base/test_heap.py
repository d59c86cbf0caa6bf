"""Freed memory is kept."""

import ctypes
import subprocess
import sys

import pytest

# Arrays of 2 MB, made and dropped in another thread, as a training step does: pages that the system had to give.
PROGRAM = """
import resource, threading
import numpy as np
from npgemma.base.heap import keep_memory

def pages(rounds=20):
    def work():
        for _ in range(rounds):
            [np.ones(1 << 19, np.float32) for _ in range(4)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=work)
    thread.start(), thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
pages()
print(pages())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc")
def test_arrays_that_are_made_again_ask_the_system_for_no_new_pages():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300  # each round of four arrays has 2,048 pages
