"""Time this tree beside another checkout: ``python tools/bench/beside.py OTHER --model FOLDER``.

Each tree loads the model in a process of its own; then they answer the same prompt in turn, one waiting while the other
works, so that both meet the same seconds of a machine with other guests.  Figures are medians over rounds of the first
token's seconds and of a further token's, and of this tree's part of the other's in each round.  Which tree loads first
may move a float32 step by a tenth, by where its memory lies: run it from either tree.

    git worktree add ../before 0f21afe
    python tools/bench/beside.py ../before --model npgemma-bench/paligemma-3b-224-4-blocks
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
DTYPES = ("float32", "bfloat16")
REST = 0.2  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other tree, whose folder npgemma/ is imported")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint that both can read")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=8, help="further tokens of a round")
    parser.add_argument("--library", action="store_true", help="leave BLAS its threads, as most programs do")
    parser.add_argument("--text", type=int, default=5, help="tokens of text behind the image tokens")
    parser.add_argument("--answer", type=Path, metavar="TREE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        return answer(options, options.dtype[0])
    for dtype in options.dtype:
        compare(options, dtype)
    return 0


def compare(options, dtype):
    """Let both trees answer in turn, and print what came."""
    trees = {"this": HERE, "other": options.other.resolve()}
    sides = {name: begin(tree, options, dtype) for name, tree in trees.items()}
    rounds = []
    for number in range(options.rounds + 1):
        in_turn = list(sides.items())[:: 1 if number % 2 else -1]
        rounds.append({name: ask(side) for name, side in in_turn})
    for side in sides.values():
        side.stdin.close()
        side.wait()
    timed = rounds[1:]  # The first warms.
    for key in ("first", "step"):
        middle = {name: statistics.median(each[name][key] for each in timed) for name in sides}
        parts = sorted(each["this"][key] / each["other"][key] for each in timed)
        spread = f"quarters {parts[len(parts) // 4]:.3f} to {parts[-1 - len(parts) // 4]:.3f}"
        figures = ", ".join(f"{name} {seconds:.4f} s" for name, seconds in middle.items())
        print(f"{dtype} {key}: {figures}; this / other {statistics.median(parts):.3f} ({spread}, {len(parts)} rounds)")
    same = all(each["this"]["ids"] == each["other"]["ids"] for each in rounds)
    print(f"{dtype} ids: {'the same' if same else 'DIFFERENT'}", flush=True)


def begin(tree, options, dtype):
    """A process that has loaded the model by a tree's own code."""
    words = [options.other, "--model", options.model, "--answer", tree, "--dtype", dtype]
    words += ["--tokens", options.tokens, "--text", options.text, *["--library"] * options.library]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    side = subprocess.Popen(
        [sys.executable, __file__, *map(str, words)], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    if side.stdout.readline() != "ready\n":
        raise SystemExit(f"{tree} did not load {options.model}; see above")
    return side


def ask(side):
    """One answer's figures, once the other's threads no longer spin for work."""
    time.sleep(REST)
    side.stdin.write("go\n")
    side.stdin.flush()
    return json.loads(side.stdout.readline())


def answer(options, dtype):
    """What a tree's process does: load, and answer as often as asked."""
    if not options.library:
        with contextlib.suppress(ImportError):  # Earlier trees leave threads to BLAS.
            from npgemma.base import threads

            threads.take_over()
    import numpy as np

    import npgemma

    if Path(npgemma.__file__).resolve().parents[1] != options.answer:
        raise SystemExit(f"npgemma came from {npgemma.__file__}; want that of {options.answer}")
    model, rng = npgemma.load(options.model, dtype=dtype), np.random.default_rng(5)
    vision, count = model.config.vision, options.tokens + 1
    words = rng.integers(5, 1000, options.text - 1).tolist()
    ids = [model.config.image_token_id] * vision.num_patches + [2, *words]
    pixels = rng.uniform(-1, 1, (1, vision.image_size, vision.image_size, 3)).astype(np.float32)
    print("ready", flush=True)
    for _ in sys.stdin:
        got = npgemma.generate(model, ids=ids, pixels=pixels, max_new_tokens=count, min_new_tokens=count)
        first = got.seconds["vision"] + got.seconds["prefill"]
        figures = {"first": first, "step": got.seconds["per_token"], "ids": list(map(int, got.ids))}
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
