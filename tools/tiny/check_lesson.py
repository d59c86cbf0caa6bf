"""The guide's example from beginning to end: ``python tools/tiny/check_lesson.py FOLDER``.

Writes the lesson (lesson.py), teaches it to the model in the box with ``npgemma finetune``, and counts right answers to
the new question and to old ones, before and after.  Exits with 3 if the new one was not learnt or the old forgotten.
"""

import argparse
import sys
from pathlib import Path

from lesson import main as write_lesson

import npgemma
from npgemma import cli
from npgemma.learn.data import read_examples
from npgemma.learn.finetune import Course, begin, judge

LORA = ["--lora", "8", "--rate", "0.003", "--held-out", "0"]
LEARNT, FORGOTTEN = 0.6, 0.1


def right(model, path):
    """The part of answers that are right to the last token."""
    course = Course(lora=1)
    return judge(model, begin(model, course), read_examples(path, model), course)["held_out_right"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", default="240")
    parser.add_argument("--old", default="0.5", help="the part of old questions in the lesson")
    options = parser.parse_args()
    sys.argv = ["lesson.py", str(options.folder), "--old", options.old]
    write_lesson()
    out = options.folder / "learnt"
    code = cli.main(["finetune", str(options.folder / "lesson.jsonl"), "-o", str(out), "--steps", options.steps, *LORA])
    if code:
        sys.exit(code)
    before, after = npgemma.load(), npgemma.load(adapter=out)
    files = {name: options.folder / f"{name}.jsonl" for name in ("new", "old")}
    parts = {name: [right(model, path) for model in (before, after)] for name, path in files.items()}
    for name, (first, last) in parts.items():
        print(f"{name} questions: {100 * first:.0f} % right before, {100 * last:.0f} % after")
    learnt, kept = parts["new"][1] >= LEARNT, parts["old"][1] >= parts["old"][0] - FORGOTTEN
    sys.exit(0 if learnt and kept else 3)


if __name__ == "__main__":
    main()
