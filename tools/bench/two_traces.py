"""Time ``npgemma compare`` of two traces: ``python tools/bench/two_traces.py FOLDER --model CHECKPOINT``.

FOLDER gets the two traces, of one prompt with a picture in float32 and in emulated bfloat16, unless they are there.
Then, each in a process of its own and with both files out of the system's cache: all bytes are read, which is the
disk's speed, and the two are compared.  Memory is the process's own; mapped pages of the files stand beside it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
TRACES = {"theirs": "float32", "right": "bf16-hf-eager"}
ROUNDS, TEXT, AT_ONCE = 3, 5, 1 << 24


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="a checkpoint; wanted where the traces are not there")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    files = [options.folder / f"{name}.safetensors" for name in TRACES]
    if options.side:
        return print(json.dumps(SIDES[options.side](files)))
    write_traces(options, files)
    print(*(f"{file.name} {file.stat().st_size / 1e9:.2f} GB" for file in files), largest(files), sep=", ")
    for _ in range(ROUNDS):
        for side in SIDES:
            forget(files)
            command = [sys.executable, __file__, str(options.folder), "--side", side]
            found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            print(f"{side:8} {found}", flush=True)


def write_traces(options, files):
    """Trace the same prompt in each precision."""
    from subjects import prompt

    import npgemma
    from npgemma.tracing.trace import trace_forward

    options.folder.mkdir(exist_ok=True)
    for file, precision in zip(files, TRACES.values(), strict=True):
        if not file.exists():
            model = npgemma.load(options.model, dtype="bfloat16")
            vision = model.config.vision
            ids, pixels = prompt(vision.num_patches, vision.image_size, model.config.image_token_id, 1, TEXT)
            trace_forward(model, ids, pixels[:, None], out=file, precision=precision, force=True)


def largest(files):
    """The largest tensor's size."""
    from npgemma.files.safetensors_file import open_safetensors

    sizes = {name: 4 * math.prod(held.shape) for name, held in open_safetensors(files[0]).tensors.items()}
    name = max(sizes, key=sizes.get)
    return f"the largest tensor is {name}, {sizes[name] / 1e9:.2f} GB"


def forget(files):
    """Ask the system to forget what it has read of some files, so that the disk is asked."""
    for file in files:
        with open(file, "rb") as held:
            os.fdatasync(held.fileno())
            os.posix_fadvise(held.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(files):
    """Seconds that the bytes take."""
    start, size, buffer = time.perf_counter(), 0, bytearray(AT_ONCE)
    for file in files:
        with open(file, "rb", buffering=0) as held:
            while count := held.readinto(buffer):
                size += count
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 2), "GB/s": round(size / seconds / 1e9, 2)}


def compare(files):
    """Seconds and memory of the comparison."""
    import contextlib
    import io

    from npgemma.base import threads

    threads.take_over()  # as the command does, before NumPy is imported
    from subjects import MemoryWatch

    from npgemma import cli

    watch, start, shown = MemoryWatch(), time.perf_counter(), io.StringIO()
    with contextlib.redirect_stdout(shown):
        code = cli.main(["compare", str(files[0]), "--pack", str(files[1])])
    seconds, used = time.perf_counter() - start, os.times()
    return {"seconds": round(seconds, 2), "cpu": round(used.user + used.system, 1), "exit": code, **watch.figures()}


SIDES = {"read": read, "compare": compare}

if __name__ == "__main__":
    main()
