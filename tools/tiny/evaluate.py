"""Judge the model in the box on held-out scenes: ``python tools/tiny/evaluate.py --seed 0 --scenes 1000``.

Every task gets as many scenes as can bear its question, answered greedily by npgemma. An answer is right if it equals
the expected one; boxes are right if every object is found with an IoU above 0.5 and nothing else is.
``--against`` also compares token ids with transformers (which needs PyTorch), answer by answer.
"""

import argparse
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from world import HELD_OUT, SIDE, TASKS, ask, draw, make_scene  # noqa: E402

import npgemma  # noqa: E402
from npgemma.generation.generate import generate_batch  # noqa: E402
from npgemma.generation.requests import Request  # noqa: E402
from npgemma.words.locations import read_boxes  # noqa: E402

# The model sees pictures at half their size: four pixels are two of its own.
SHIFT = 4
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Question:
    """A picture with a prompt and the answer that is right; ``shift`` is how far the scene was moved."""

    seed: int
    image: object
    prompt: str
    wanted: str
    shift: tuple[int, int]


def make_questions(task, seed, scenes, shifted=False):
    """The questions of a task: the same scenes for a seed whether shifted or not."""
    questions, number = [], HELD_OUT * (1 + seed)
    while len(questions) < scenes:
        scene = make_scene(number)
        found = ask(task, scene, random.Random(number + 1))
        if found:
            rng = random.Random(number + 2)
            shift = (rng.choice((-SHIFT, SHIFT)), rng.choice((-SHIFT, SHIFT))) if shifted else (0, 0)
            questions.append(Question(number, draw(scene, shift), *found, shift))
        number += 1
    return questions


def answer_all(model, questions, batch):
    """Greedy answers of npgemma, ``batch`` at a time."""
    answers = []
    for start in range(0, len(questions), batch):
        requests = [Request(one.image, one.prompt) for one in questions[start : start + batch]]
        answers += generate_batch(model, requests, max_new_tokens=MAX_NEW_TOKENS)
    return answers


def judge_boxes(question, text):
    """Whether each object was found and nothing else, and the IoU of each object (0 where it was not found)."""
    size = (SIDE, SIDE)
    left, unread = read_boxes(text, size)
    overlaps = []
    for wanted in read_boxes(question.wanted, size)[0]:
        corners = np.array(wanted.corners) + np.array(question.shift * 2)
        scores = [iou(corners, box.corners) if box.label == wanted.label else 0.0 for box in left]
        best = max(range(len(left)), key=scores.__getitem__, default=None)
        overlaps.append(scores[best] if left else 0.0)
        if overlaps[-1] > 0.5:
            left.pop(best)
    return not left and not unread and all(score > 0.5 for score in overlaps), overlaps


def iou(one, two):
    """Area that two boxes share, over the area that they cover."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return shared / (sum(areas) - shared)


def figures(task, questions, answers):
    """The part of right answers, and for boxes the mean IoU over all objects."""
    if task != "detect":
        return np.mean([answer.text == one.wanted for one, answer in zip(questions, answers, strict=True)]), None
    judged = [judge_boxes(one, answer.text) for one, answer in zip(questions, answers, strict=True)]
    return np.mean([right for right, _ in judged]), np.mean(np.concatenate([overlaps for _, overlaps in judged]))


def show_wrong(task, questions, answers, most):
    """Print some wrong answers beside the right ones."""
    for one, answer in zip(questions, answers, strict=True):
        wrong = not judge_boxes(one, answer.text)[0] if task == "detect" else answer.text != one.wanted
        if wrong and most > 0:
            print(f"    seed {one.seed}: {one.prompt!r} wants {one.wanted!r}, came {answer.text!r}")
            most -= 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FOLDER", help="the model in the box if left out")
    parser.add_argument("--seed", type=int, default=0, help="chooses the scenes; training never sees any of them")
    parser.add_argument("--scenes", type=int, default=1000, help="of each task")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--no-shifts", action="store_true", help="do not ask again with everything moved")
    parser.add_argument("--precision", default="float32", help="a recipe of npgemma, such as bf16-hf-eager")
    parser.add_argument("--against", choices=("transformers",), help="compare token ids")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="show so many wrong answers of each task")
    options = parser.parse_args()
    model = npgemma.load(options.model, precision=options.precision)
    if options.against:
        from against import compare, load_reference

        reference = load_reference(options.model, options.precision)
    for task in options.tasks:
        began = time.time()
        questions = make_questions(task, options.seed, options.scenes)
        answers = answer_all(model, questions, options.batch)
        right, overlap = figures(task, questions, answers)
        line = f"{task:10}  right {100 * right:5.1f} %" + ("" if overlap is None else f"  mean IoU {overlap:.3f}")
        if not options.no_shifts:
            moved = make_questions(task, options.seed, options.scenes, shifted=True)
            right, overlap = figures(task, moved, answer_all(model, moved, options.batch))
            line += f"  moved {100 * right:5.1f} %" + ("" if overlap is None else f"  mean IoU {overlap:.3f}")
        print(f"{line}  ({time.time() - began:.0f} s)", flush=True)
        show_wrong(task, questions, answers, options.wrong)
        if options.against:
            compare(reference, questions, answers)


if __name__ == "__main__":
    main()
