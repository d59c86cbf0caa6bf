"""Feed npgemma with broken files, faster than people make them: every case ends in a right result or an NpgemmaError.

    python tools/fuzz.py pictures --seconds 60 --seed 7
    python tools/fuzz.py all --cases 10000                  as CI runs it
    python tools/fuzz.py --list

A case is one file of a kind, made from a valid one by a few mutations: of its bytes, or of what it consists of, under
lengths and checksums that fit.  It may take 2 seconds, and 64 MB beside 1.5 times the file's size and its decoded
pixels.  What it finds is written to ``tests/found``, where ``tests/test_found.py`` reads it again.
"""

import argparse
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import file_mutators  # noqa: E402
import mutators  # noqa: E402
import picture_mutators  # noqa: E402
from fuzzed import TARGETS, outcome  # noqa: E402

SECONDS, MEMORY = 2.0, 64_000_000  # of one case, beside 1.5 times its size
PIXELS = 50_000_000  # a picture within the limit may be decoded

MUTATE = {
    "bytes": mutators.mutate_bytes,
    "json": mutators.mutate_json,
    "lines": mutators.mutate_lines,
    "safetensors": file_mutators.mutate_safetensors,
    "array": file_mutators.mutate_npy,
    "archive": file_mutators.mutate_zip,
    "message": file_mutators.mutate_message,
    "picture": picture_mutators.mutate_picture,
}


class Hangs(BaseException):
    """A case took far longer than it may."""


def ring(*_):
    raise Hangs


def fuzz(name, seconds, cases, seed, found):
    """Run one target; gives how its cases ended, and how many findings there were."""
    target, rng, counts = TARGETS[name], random.Random(f"{name} {seed}"), Counter()
    examples = target.examples()
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        target.prepare(Path(folder))
        for example in examples:
            outcome(target, Path(folder), example)
        while sum(counts.values()) < cases and time.monotonic() - started < seconds:
            data = MUTATE[target.kind](rng.choice(examples), rng)
            how, problem = judged(target, Path(folder), data)
            counts[how] += 1
            if problem:
                keep(name, data, how, problem, found)
    return counts


def judged(target, folder, data):
    """Run one case: how it ended, and what is wrong with that."""
    before, started = forget_peak(), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
    try:
        how, problem = outcome(target, folder, data), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        how, problem = f"finding: {type(error).__name__}", traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took, grown = time.process_time() - started, peak() - before
    if not problem and took > SECONDS:
        how, problem = "finding: slow", f"took {took:.1f} s"
    if not problem and grown > MEMORY + 1.5 * (len(data) + (4 * PIXELS if target is TARGETS["pictures"] else 0)):
        how, problem = "finding: memory", f"took {grown / 1e6:.0f} MB"
    return how, problem


def forget_peak():
    """Let the system count the largest memory from now on, where it can; gives the memory that is used now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return peak()


def peak():
    """The largest memory of this process, in bytes."""
    try:
        status = Path("/proc/self/status").read_bytes()
        return 1024 * int(status.partition(b"VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return 1000 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep(name, data, how, problem, found):
    """Save one finding of a kind as a test, and tell of it."""
    place = problem.split("File")[-1].partition(", in ")[0]  # where it was raised
    kind = hashlib.sha256((how + place).encode()).hexdigest()[:10]
    path = found / f"{name}-{kind}"
    if not path.exists():
        found.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path}: {how}\n{problem}", flush=True)


def record(path, name, seed, counts):
    """Add a line that says what was run, of which commit, and how it ended."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    findings = sum(count for how, count in counts.items() if how.startswith("finding"))
    line = {"target": name, "commit": commit, "seed": seed, "cases": counts.total(), "findings": findings, **counts}
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", default="all", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each target")
    parser.add_argument("--cases", type=int, help="of all targets together (10,000 if no --seconds are given)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=ROOT / "tests" / "found", help="folder of the findings")
    parser.add_argument("--record", type=Path, help="add a line of JSON for each target to this file")
    parser.add_argument("--list", action="store_true", help="name the targets")
    args = parser.parse_args()
    if args.list:
        print("\n".join(TARGETS))
        return 0
    names = list(TARGETS) if args.target == "all" else [args.target]
    cases = args.cases or (10_000 if args.seconds == float("inf") else 10**12)
    total = Counter()
    for name in names:
        started = time.monotonic()
        counts = fuzz(name, args.seconds, -(-cases // len(names)), args.seed, args.found)
        total += counts
        if args.record:
            record(args.record, name, args.seed, counts)
        rate = sum(counts.values()) / (time.monotonic() - started)
        print(f"{name}: {sum(counts.values()):,} cases, {rate:,.0f} a second, {dict(counts)}", flush=True)
    findings = sum(count for how, count in total.items() if how.startswith("finding"))
    print(f"{sum(total.values()):,} cases, seed {args.seed}: {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
