"""What the machine can do at best, measured: reading memory, multiplying, handing out memory; and keeping it busy."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

# Rows, width and columns of products of the models: the tower's, and both ways of the decoder's widest.
SHAPES = ((256, 1152, 4304), (261, 2048, 16384), (261, 16384, 2048))


def timed(work):
    """Seconds that a call takes, and what it gives."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def ceilings(settings):
    """What this machine can do at best: sgemm at the model's shapes, reading memory, handing out memory."""
    from npgemma.checkpoints.memory import available_memory

    figures = {f"sgemm {T}x{D} by {D}x{F}, GFLOP/s": round(gflops) for (T, D, F), gflops in best_products().items()}
    figures["gflops"] = float(max(figures.values()))
    figures["read_gb"] = reading_speed()
    size = 2 * sum(path.stat().st_size for path in Path(settings["model"]).glob("*.safetensors"))
    if 1e9 < size < 0.8 * (available_memory() or 0):
        seconds = [touch(size) for _ in range(2)]
        figures[f"{size / 1e9:.1f} GB of memory handed out, s, twice"] = [round(value, 1) for value in seconds]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    figures["BLAS"] = f"{blas['name']} {blas['version']}, {kernel()}"
    return figures


def best_products():
    """GFLOP/s of BLAS's product, by its own threads, at each of :data:`SHAPES`."""
    rng = np.random.default_rng(0)
    found = {}
    for T, D, F in SHAPES:
        x, w = rng.standard_normal((T, D), dtype=np.float32), rng.standard_normal((F, D), dtype=np.float32)
        found[T, D, F] = 2 * T * D * F / min(timed(lambda: w @ x.T)[0] for _ in range(7)) / 1e9
    return found


def reading_speed():
    """GB/s at which memory is read: the best of BLAS's matrix times vector, and of a thread a processor."""
    matrix, vector = np.ones((1 << 18, 2048), np.float32), np.ones(2048, np.float32)
    parts = np.array_split(matrix, len(os.sched_getaffinity(0)))

    def by_threads():
        in_threads([lambda part=part: np.vecdot(part, part) for part in parts])

    seconds = min(min(timed(work)[0] for _ in range(7)) for work in (lambda: matrix @ vector, by_threads))
    return round(matrix.nbytes / seconds / 1e9, 1)


def in_threads(works):
    """Do several things at once, and wait for all."""
    started = [threading.Thread(target=work) for work in works]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def touch(size):
    """Seconds to get so many bytes of fresh memory from the system, by two threads."""
    fresh = np.empty(size, np.uint8)
    halves = (fresh[::8192], fresh[4096::8192])
    return timed(lambda: in_threads([lambda part=part: part.fill(1) for part in halves]))[0]


def kernel():
    """The set of kernels that BLAS chose, where threadpoolctl is there to ask it."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "kernels unknown (threadpoolctl is not installed)"
    return ", ".join(f"{info.get('architecture')} kernels, {info['num_threads']} threads" for info in threadpool_info())


@contextlib.contextmanager
def busy(loops):
    """Keep the processors busy with so many endless loops."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()
