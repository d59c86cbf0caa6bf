"""Compare a fresh export with golden/, by tolerance: other CPUs round otherwise, so that hashes would prove nothing.

    python tools/golden/export.py --out fresh && python tools/golden/compare.py fresh

float64 within 1e-12 and float32 within 1e-5 (relative L2, and largest difference over largest value), bfloat16 at
least 99.9 % of bits equal (in a tensor under 1,000 elements one may differ); integers, masks and weights equal.
Prints one line a tensor that is out of tolerance and exits with 3, or one line a file and exits with 0.

In bfloat16 another CPU's first other rounding runs through all that follows.  So the whole bfloat16 traces of ``fresh``
are not read: each operation is run again here, on the stored input of that operation.
"""

import argparse
import pathlib
import sys

import golden_trace
import torch
import transformers
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("equations", "tiny-1", "tiny-2")
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
BF16_SHARE = 0.999


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fresh", type=pathlib.Path, help="folder that tools/golden/export.py --out wrote")
    parser.add_argument("stored", type=pathlib.Path, nargs="?", default=ROOT / "golden")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    wrong = 0
    for path in sorted(path for folder in FOLDERS for path in (arguments.stored / folder).glob("*.safetensors")):
        name = path.relative_to(arguments.stored)
        if path.stem.startswith("trace-bf16"):
            fresh = operations_alone(path)
        elif (arguments.fresh / name).exists():
            fresh = load_file(arguments.fresh / name)
        else:
            fresh = {}
        lines = compare_files(fresh, load_file(path), is_weights=path.stem == "model")
        wrong += len(lines)
        print(*[f"{name}: {line}" for line in lines] or [f"{name}: within tolerance"], sep="\n")
    sys.exit(3 if wrong else 0)


def operations_alone(path):
    """What each operation of the stored trace ``path`` gives here, on its stored input."""
    batch = {key: tensor.numpy() for key, tensor in load_file(path.with_name("trace-inputs.safetensors")).items()}
    precision = path.stem.removeprefix("trace-")
    return golden_trace.run(path.parent, batch, precision, stored=load_file(path))


def compare_files(fresh, stored, is_weights):
    """One line for each tensor that is missing, new, or out of tolerance."""
    lines = [f"{key} is in one of the two only" for key in sorted(set(fresh) ^ set(stored))]
    for key in sorted(set(fresh) & set(stored)):
        problem = compare(fresh[key], stored[key], is_weights)
        if problem:
            lines.append(f"{key}: {problem}")
    return lines


def compare(fresh, stored, is_weights):
    """What is out of tolerance, or None."""
    if fresh.dtype != stored.dtype or fresh.shape != stored.shape:
        return f"{fresh.dtype} {tuple(fresh.shape)}, stored {stored.dtype} {tuple(stored.shape)}"
    if is_weights or not stored.is_floating_point():
        return None if torch.equal(fresh, stored) else "values differ; want them equal"
    if stored.dtype == torch.bfloat16:
        differing = int((fresh != stored).sum())
        allowed = max(1, stored.numel() // 1000)
        share = 1.0 - differing / stored.numel()
        return None if differing <= allowed else f"{share:.4%} of bits equal; want {BF16_SHARE:.1%}"
    tolerance = TOLERANCES[stored.dtype]
    gap = (fresh.double() - stored.double()).abs()
    relative = (gap.norm() / stored.double().norm().clamp_min(1e-300)).item()
    largest = (gap.max() / stored.double().abs().max().clamp_min(1e-300)).item()
    if relative <= tolerance and largest <= tolerance:
        return None
    return f"relative L2 {relative:.2e}, largest difference over largest value {largest:.2e}; want {tolerance:.0e}"


if __name__ == "__main__":
    main()
