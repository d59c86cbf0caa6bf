"""``npgemma evaluate``: scores of answers, captions, boxes and masks."""

import argparse
from pathlib import Path
from typing import Any

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.base.progress import Progress
from npgemma.files.reader import parse_json, read_file, read_input
from npgemma.places.codec_file import load_codec
from npgemma.places.evaluate import SCORES, confidence_table, evaluate
from npgemma.verbs.options import add_verb

MAX_BYTES = 2**30  # of answers

DESCRIPTION = """Score the answers that a file holds, a JSON object a line, as 'npgemma generate --batch' writes them:

  npgemma generate --batch questions.jsonl -o answers.jsonl --model FOLDER
  npgemma evaluate answers.jsonl

What is right stands in each question (or beside the answer's "text"), and says what can be scored:

  "answer": "4"                        exact match, ANLS (DocVQA), relaxed accuracy (ChartQA)
  "answers": ["four", "4", ...]        exact match and ANLS with any of them; of ten: VQA accuracy
  "captions": ["a cat on a mat", ...]  CIDEr, from 0 to 10; it learns what is rare from these captions
  "objects": [{"label": "cat", "box": [left, top, right, bottom], "crowd": false, "mask": {"size", "counts"}}]
                                       mAP at 0.5 and 0.5:0.95 as COCO counts; of one object also the part of boxes
                                       with an IoU of 0.5 and 0.75, and the mean IoU of masks (RefCOCO)

Boxes are in pixels, masks are COCO's run-lengths.  A line that could not be answered counts as an empty answer."""


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "evaluate", "scores of captions, answers, boxes and masks", DESCRIPTION, run)
    parser.add_argument("answers", metavar="ANSWERS.jsonl", help="- reads standard input")
    parser.add_argument("--score", action="append", choices=SCORES, help="this one only (repeatable)")
    parser.add_argument("--fold-case", action="store_true", help="exact match, ANLS and relaxed accuracy in lower case")
    parser.add_argument("--codec", metavar="FILE|FOLDER", help="for masks that are <seg> codes only")
    parser.add_argument("--reliability", action="store_true", help="what the confidence of boxes is worth, in ten bins")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Score, and return the exit code."""
    answers = read_answers(args.answers)
    codec = None if args.codec is None else load_codec(args.codec)
    with Progress("scoring") as progress:
        found = evaluate(answers, scores=args.score, fold_case=args.fold_case, codec=codec, progress=progress)
    table = confidence_table(answers) if args.reliability else []
    failed = sum("error" in line for line in answers)
    if failed:
        printer.tell(f"note: {failed} of {len(answers)} lines could not be answered, and count as empty answers")
    if args.json:
        rows = [{"count": count, "confidence": sure, "right": right} for count, sure, right in table]
        printer.say_json(found | ({"reliability": rows} if args.reliability else {}))
        return 0
    printer.say("   score  answers")
    for name, value in found.items():
        if not name.endswith("/count"):
            printer.say(f"{value:8.4f}{found[name.split('/')[0] + '/count']:9,}  {name}")
    if args.reliability:
        printer.say("\nconfidence   boxes    mean   right (IoU 0.5)")
    for place, (count, sure, right) in enumerate(table):
        printer.say(f"{place / 10:.1f} to {(place + 1) / 10:.1f}{count:8,}{sure:8.3f}{right:8.3f}")
    return 0


def read_answers(name: str) -> list[dict[str, Any]]:
    """Read the lines of a file, or of standard input for ``-``; blank ones are passed over."""
    data = read_input(MAX_BYTES, InputError) if name == "-" else read_file(Path(name), MAX_BYTES, InputError)
    lines = enumerate(data.split(b"\n"), start=1)
    found = [parse_json(line, f"{name}: line {number}", InputError) for number, line in lines if line.strip()]
    if not found:
        raise InputError(f"{name}: holds no answers")
    return found
