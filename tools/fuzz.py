"""Feed npgemma with broken files, faster than people make them: every case ends in a right result or an NpgemmaError.

    python tools/fuzz.py pictures --seconds 60 --seed 7
    python tools/fuzz.py all --cases 10000                  as CI runs it
    python tools/fuzz.py --list

A case is one file of a kind, made from a valid one by a few mutations of its bytes, of its JSON, or of its header.  It
may take 2 seconds, and 1.5 times the file's size, its decoded pixels and 64 MB of memory.  What it finds is written to
``tests/found``, where ``tests/test_found.py`` reads it again.
"""

import argparse
import contextlib
import hashlib
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fuzzed import TARGETS, outcome  # noqa: E402

SECONDS, MEMORY = 2.0, 64_000_000  # of one case, beside 1.5 times its size
PIXELS = 50_000_000  # a picture within the limit may be decoded

ODD_NUMBERS = (
    0, -1, 1, 2, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**20,
    -(2**63), 1.5, -0.0, 1e-320, 1e308, 0.1,
)
ODD_TEXTS = ("", "a", "../../etc/passwd", "\0", "a\nb", "\x1b[2J", "é", "🙂", "x" * 300, "NaN", "-", "1", "\ud800")
ODD_JSON = (
    b"NaN", b"Infinity", b"1e999", b"9" * 400, b'"\\ud800"', b"[" * 80, b"[" * 5000, b"{" * 80, b"\xff", b"\\", b'""',
    b"", b'{"a":1,"a":2}', b"null", b"-", b"01", b"\xef\xbb\xbf",
)


def odd_value(rng):
    """A JSON value that may stand nowhere, or anywhere."""
    kinds = (None, True, False, [], {}, [[]], {"": None}, [1] * 9, rng.choice(ODD_NUMBERS), rng.choice(ODD_TEXTS))
    return rng.choice(kinds)


def mutate_bytes(data, rng):
    """Change, add, remove or repeat some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1024))
        way = rng.randrange(7)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif way == 2:
            del data[at : at + size]
        elif way == 3:
            data[at:at] = rng.randbytes(size)
        elif way == 4:
            start = rng.randrange(len(data) + 1)
            data[at : at + rng.choice((0, size))] = data[start : start + size]
        elif way == 5:
            number = rng.choice(ODD_NUMBERS[:18]) % 2**64
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
        else:
            del data[at:]
    return bytes(data)


def places(value, found=None):
    """Each place within a JSON value: what holds it, and its key."""
    found = [] if found is None else found
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(child, dict | list):
            places(child, found)
    return found


def mutate_value(value, rng):
    """Change a few places of a JSON value: another value, key, order, or nothing."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        every = places(value)
        if not every:
            return value
        holder, key = rng.choice(every)
        way = rng.randrange(6)
        if way <= 2:
            holder[key] = odd_value(rng)
        elif way == 3:
            del holder[key]
        elif way == 4 and isinstance(holder, dict):
            holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
        else:
            other, place = rng.choice(every)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = json.loads(json.dumps(other[place]))
    return value


def mutate_json(data, rng):
    """Change a JSON text: as a value, as bytes, or by odd JSON in the place of something."""
    way = rng.randrange(4)
    if way < 2:
        return json.dumps(mutate_value(json.loads(data), rng)).encode()
    if way == 2:
        return mutate_bytes(data, rng)
    ends = [at for at, byte in enumerate(data) if byte in b",:]}"]
    start, end = sorted(rng.choice(ends) for _ in range(2)) if ends else (0, 0)
    return data[:start] + rng.choice(ODD_JSON) + data[start if rng.random() < 0.5 else end :]


def mutate_lines(data, rng):
    """Change one line of JSON, or the lines' order and number."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    way = rng.randrange(6)
    if way == 0:
        return mutate_bytes(data, rng)
    if way == 1:
        lines[at:at] = [rng.choice(lines)]
    elif way == 2:
        del lines[at]
    else:
        lines[at] = mutate_json(lines[at].rstrip(b"\n"), rng) + (b"\n" if rng.random() < 0.9 else b"")
    return b"".join(lines)


def mutate_safetensors(data, rng):
    """Change the header of a file as JSON, or anything as bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.25 or 8 + length > len(data):
        return mutate_bytes(data, rng)
    if rng.random() < 0.2:
        header = mutate_bytes(data[8 : 8 + length], rng)
    else:
        header = mutate_json(data[8 : 8 + length], rng)
    said = len(header) if rng.random() < 0.95 else rng.choice(ODD_NUMBERS[:18]) % 2**64
    return said.to_bytes(8, "little") + header + data[8 + length :]


MUTATE = {"bytes": mutate_bytes, "json": mutate_json, "lines": mutate_lines, "safetensors": mutate_safetensors}


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
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 20 * SECONDS)
    try:
        how, problem = outcome(target, folder, data), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        how, problem = f"finding: {type(error).__name__}", traceback.format_exc(limit=-4)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.process_time() - started
    grown = 1000 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss)
    if not problem and took > SECONDS:
        how, problem = "finding: slow", f"took {took:.1f} s"
    if not problem and grown > MEMORY + 1.5 * len(data) + (4 * PIXELS if target is TARGETS["pictures"] else 0):
        how, problem = "finding: memory", f"took {grown / 1e6:.0f} MB"
    return how, problem


def keep(name, data, how, problem, found):
    """Save one finding of a kind as a test, and tell of it."""
    kind = hashlib.sha256((how + problem.split("File")[-1]).encode()).hexdigest()[:10]
    path = found / f"{name}-{kind}"
    if not path.exists():
        found.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{path}: {how}\n{problem}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", default="all", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each target")
    parser.add_argument("--cases", type=int, help="of all targets together (10,000 if no --seconds are given)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=ROOT / "tests" / "found", help="folder of the findings")
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
        rate = sum(counts.values()) / (time.monotonic() - started)
        print(f"{name}: {sum(counts.values()):,} cases, {rate:,.0f} a second, {dict(counts)}", flush=True)
    findings = sum(count for how, count in total.items() if how.startswith("finding"))
    print(f"{sum(total.values()):,} cases, seed {args.seed}: {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
