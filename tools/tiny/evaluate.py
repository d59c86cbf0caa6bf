"""Judge the model in the box on held-out pictures: ``python tools/tiny/evaluate.py --seed 0 --scenes 1000``.

Every task gets so many pictures under each condition (conditions.py), answered greedily by npgemma. An answer is right
if it equals the expected one; boxes and masks are right if every object is found with an IoU above 0.5, boxes by boxes
and masks by masks in the picture's own pixels, and nothing else is. Then come the twenty pictures of
golden/tiny-box/drawn, and what the confidence of boxes is worth. ``--against`` also compares token ids with
transformers (which needs PyTorch), answer by answer.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from conditions import CONDITIONS, Question, Thing, make_questions  # noqa: E402
from drawn_questions import TASKS  # noqa: E402
from PIL import Image  # noqa: E402
from world import COLOURS  # noqa: E402

import npgemma  # noqa: E402
from npgemma.generation.generate import generate_batch  # noqa: E402
from npgemma.generation.requests import Request  # noqa: E402
from npgemma.places.detection import mask_iou, overlap  # noqa: E402
from npgemma.places.evaluate import confidence_table  # noqa: E402
from npgemma.places.run_lengths import decode_runs  # noqa: E402

DRAWN = ROOT / "golden" / "tiny-box" / "drawn"
MAX_NEW_TOKENS = 160
PARTS = (*CONDITIONS, "drawn", "confidence")


def answer_all(model, questions, batch):
    """Greedy answers of npgemma, ``batch`` at a time."""
    answers = []
    for start in range(0, len(questions), batch):
        requests = [Request(one.image, one.prompt) for one in questions[start : start + batch]]
        answers += generate_batch(model, requests, max_new_tokens=MAX_NEW_TOKENS)
    return answers


def judge_places(model, codec, question, answer):
    """Whether each object was found and nothing else, and the IoU of each object, 0 where it was not found."""
    places, unread = npgemma.locate(model, answer, question.image, codec)
    masked, overlaps = question.prompt.startswith("segment"), []
    for thing in question.things:
        scores = [score_of(place, thing, masked) for place in places]
        best = max(range(len(places)), key=scores.__getitem__, default=None)
        overlaps.append(0.0 if best is None else scores[best])
        if overlaps[-1] > 0.5:
            places.pop(best)
    return not places and not unread and all(score > 0.5 for score in overlaps), overlaps


def score_of(place, thing, masked):
    """The IoU of a place with a thing, 0 under another name."""
    if place.box.label != thing.label:
        return 0.0
    if not masked:
        return overlap(place.box.corners, thing.box)
    return 0.0 if place.mask is None else mask_iou(place.mask, thing.mask)


def judge(model, codec, questions, answers):
    """Which answers are right, and the IoU of all objects."""
    right, overlaps = [], []
    for question, answer in zip(questions, answers, strict=True):
        if question.things:
            fits, scores = judge_places(model, codec, question, answer)
            overlaps += scores
        else:
            fits = answer.text == question.wanted
        right.append(fits)
    return right, overlaps


def figures(right, overlaps):
    """A line: the part of right answers, and for boxes and masks the mean IoU over all objects."""
    line = f"right {100 * np.mean(right):5.1f} %"
    if overlaps:
        line += f"  mean IoU {np.mean(overlaps):.3f}, above 0.5 {100 * np.mean(np.array(overlaps) > 0.5):.1f} %"
    return line


def by_colour(questions, right):
    """A line: the part of right answers where things are asked for by kind alone, and where a colour is named."""
    named = np.array([any(word in COLOURS for word in one.prompt.split()) for one in questions])
    parts = [f"{100 * np.mean(np.array(right)[which]):.1f} % of {which.sum()}" for which in (~named, named)]
    return f"    by kind alone {parts[0]}, with a colour named {parts[1]}"


def show_wrong(questions, answers, right, most):
    """Print some wrong answers beside the right ones."""
    wrong = [(one, answer) for one, answer, fits in zip(questions, answers, right, strict=True) if not fits]
    for one, answer in wrong[:most]:
        print(f"    seed {one.seed}: {one.prompt!r} wants {one.wanted!r}, came {answer.text!r}")


def hand_drawn():
    """The questions about the pictures of draw_by_hand.py."""
    questions = []
    for line in (DRAWN / "questions.jsonl").read_text().splitlines():
        asked = json.loads(line)
        things = tuple(Thing(one["label"], one["box"], decode_runs(one["mask"])) for one in asked.get("objects", ()))
        image = Image.open(DRAWN / asked["image"]).convert("RGB")
        questions.append(Question(int(asked["image"][:2]), image, asked["prompt"], asked.get("answer", ""), things))
    return questions


def confidence_lines(model, codec, questions, answers):
    """Answers with boxes as ``npgemma generate --json`` gives them, beside what is right."""
    for question, answer in zip(questions, answers, strict=True):
        places, _ = npgemma.locate(model, answer, question.image, codec)
        boxes = [{"label": one.box.label, "box": list(one.box.corners), "confidence": one.confidence} for one in places]
        objects = [{"label": one.label, "box": list(one.box)} for one in question.things]
        yield {"text": answer.text, "boxes": boxes, "objects": objects, "size": list(question.image.size)}


def confidence(model, codec, options):
    """Print the reliability table of boxes."""
    questions = make_questions("detect", "anything", options.seed, options.scenes)
    answers = answer_all(model, questions, options.batch)
    print("confidence of boxes, what the model says and how often the box has an IoU of 0.5:")
    for count, said, right in confidence_table(list(confidence_lines(model, codec, questions, answers))):
        print(f"    {count:6}  says {said:.3f}  right {right:.3f}" if count else "         0")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FOLDER", help="the model in the box if left out")
    parser.add_argument("--codec", metavar="FILE|FOLDER", help="of masks; the model's own if left out")
    parser.add_argument("--seed", type=int, default=0, help="chooses the pictures; training never sees any of them")
    parser.add_argument("--scenes", type=int, default=1000, help="of each task under each condition")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS[:-1])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="conditions")
    parser.add_argument("--precision", default="float32", help="a recipe of npgemma, such as bf16-hf-eager")
    parser.add_argument("--against", choices=("transformers",), help="compare token ids")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="show so many wrong answers of each task")
    return parser.parse_args()


def main():
    options = arguments()
    model = npgemma.load(options.model, precision=options.precision)
    codec = npgemma.load_codec(options.codec or options.model)
    if options.against:
        from against import compare, load_reference

        reference = load_reference(options.model, options.precision)
    for condition in [one for one in options.only if one != "confidence"]:
        for task in options.tasks if condition in CONDITIONS else ("all",):
            began = time.time()
            known = condition in CONDITIONS
            questions = make_questions(task, condition, options.seed, options.scenes) if known else hand_drawn()
            answers = answer_all(model, questions, options.batch)
            right, overlaps = judge(model, codec, questions, answers)
            print(f"{condition:9} {task:10}  {figures(right, overlaps)}  ({time.time() - began:.0f} s)", flush=True)
            if known and task in ("detect", "segment"):
                print(by_colour(questions, right), flush=True)
            show_wrong(questions, answers, right, options.wrong)
            if options.against:
                compare(reference, questions, answers)
    if "confidence" in options.only:
        confidence(model, codec, options)


if __name__ == "__main__":
    main()
