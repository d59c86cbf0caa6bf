"""Many questions from a file, their answers into another, a JSON object a line, in order.

An interrupted run goes on where it ended: answers that are already in the output file are not computed again, and
lines that could not be answered are tried once more, in their places.
"""

import argparse
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base import printer
from npgemma.base.errors import InputError, NpgemmaError
from npgemma.base.progress import Progress
from npgemma.files.reader import parse_json, read_file, read_input
from npgemma.files.writer import Lines, growing
from npgemma.generation.answers import Answer
from npgemma.generation.generate import generate_batch
from npgemma.generation.requests import Request, Seen
from npgemma.paligemma import Model
from npgemma.verbs.answer_fields import answer_fields
from npgemma.verbs.finder import Finder
from npgemma.verbs.following import following
from npgemma.verbs.options import tell

OURS = ("image", "prompt", "ids")
MAX_BYTES = 2**30  # of questions
# Of a prompt, and of an answer: to guess how far a group is.
LIKELY_TOKENS = 16
# How each line of ours begins, so that a file of answers is known for one even where its first line was cut short.
MARKED = re.compile(rb'\{"run": "[0-9a-f]{12}", "line": ')


@dataclass(frozen=True)
class Question:
    """A line of the input: its number from 1, what it holds, and the request, or why it is none."""

    line: int
    fields: dict[str, Any]
    request: Request | None = None
    error: str = ""


def answer_file(model: Model, args: argparse.Namespace, settings: dict[str, Any], find: Finder) -> int:
    """Answer all questions of ``args.batch``.

    Returns
    -------
    code : int
        1 where some lines could not be answered: each says so itself, in its place.

    Raises
    ------
    InputError
        If the questions cannot be read, or the output holds answers to others.
    """
    if args.output is not None and Path(args.output).suffix not in (".jsonl", ".ndjson", ""):
        raise InputError(f"{args.output}: answers are written as lines of JSON; want a name that ends in .jsonl")
    if args.batch_size < 1:
        raise InputError(f"--batch-size: came as {args.batch_size}; want 1 or more")
    questions = read_questions(args.batch, "allow" if args.allow_specials else "refuse")
    mark = mark_of(model, args, settings)
    tell(reading_notes(args.batch, questions))
    seen = Seen()
    settings = settings | {"seen": seen}
    failed: list[dict[str, Any]] = []
    computed = 0
    with opened(args) as output, Progress("answering") as progress:
        lines = finished_lines(output, questions, mark)
        again = [number for number, line in enumerate(lines) if "error" in line]
        if output is not None and again:
            try:
                for place, number in enumerate(again):
                    progress(place, len(again))
                    [lines[number]] = answered(model, [questions[number]], settings, mark, find)
            finally:  # an interrupted run keeps what it has
                output.replace(map(as_line, lines))
            computed, failed = len(again), [line for line in lines if "error" in line]
        for start in range(len(lines), len(questions), args.batch_size):
            group = questions[start : start + args.batch_size]
            followed = following_group(model, progress, start, len(group), len(questions))
            for line in answered(followed, group, settings, mark, find):
                computed += 1
                failed += [line] if "error" in line else []
                write_line(output, line)
    tell(seen.saved())
    if output is not None:
        tell([f"written to {args.output}" if computed else f"{args.output} holds every answer already"])
    if failed:
        first = f"line {failed[0]['line']}: {failed[0]['error']}"
        count = f"{len(failed)} of {len(questions)} lines"
        printer.tell(f"{args.batch}: {count} could not be answered, the first is {first}; each says so in its 'error'")
    return 1 if failed else 0


def following_group(model: Model, progress: Progress, start: int, count: int, whole: int) -> Model:
    """Give the model with weights that tell how many of the questions are answered, within a group of them too."""

    def tell_of(done: float, total: float) -> None:
        progress(start + count * done / total, whole)

    tell_of(0, 1)
    tokens = count * (model.config.vision.num_patches + LIKELY_TOKENS)
    return following(model, tell_of, tokens, count, LIKELY_TOKENS, rows=count)


def reading_notes(name: str, questions: list[Question]) -> list[str]:
    """Say what of the questions is probably a slip: none at all, or a key that is nearly one of ours."""
    if not questions:
        return [f"--batch {name}: holds no questions"]
    notes: dict[str, str] = {}
    for question in questions:
        for key in question.fields.keys() - set(OURS):
            near = difflib.get_close_matches(key, OURS, n=1, cutoff=0.7)  # "id" is everybody's own
            if near and key != "id" and near[0] not in question.fields:
                notes.setdefault(key, f"line {question.line}: the key {key!r} is not read; is {near[0]!r} meant?")
    return list(notes.values())


def answered(
    model: Model, group: list[Question], settings: dict[str, Any], mark: str, find: Finder
) -> list[dict[str, Any]]:
    """Give the output lines of some questions."""
    return [
        {"run": mark, "line": question.line, "question": question.fields, **outcome(answer, question, find)}
        for question, answer in zip(group, answer_group(model, group, settings), strict=True)
    ]


def read_questions(name: str, specials: str) -> list[Question]:
    """Read the lines of a file, or of standard input for ``-``; blank ones are passed over."""
    data = read_input(MAX_BYTES, InputError) if name == "-" else read_file(Path(name), MAX_BYTES, InputError)
    lines = enumerate(data.split(b"\n"), start=1)
    return [read_question(number, line, specials) for number, line in lines if line.strip()]


def read_question(number: int, line: bytes, specials: str) -> Question:
    """Read one line; what is wrong with it is kept, so that the other lines are answered."""
    try:
        fields = parse_json(line, "this line", InputError)
    except InputError as problem:
        return Question(number, {}, error=str(problem))
    if not fields.keys() & set(OURS):
        return Question(number, fields, error=f"has none of the keys {', '.join(OURS)}; want one at least")
    image, prompt, ids = (fields.get(name) for name in OURS)
    if not (
        image is None or isinstance(image, str) or (isinstance(image, list) and all(isinstance(i, str) for i in image))
    ):
        return Question(number, fields, error="image: want the path of a picture, a list of them, or null")
    if image == "-" or (isinstance(image, list) and "-" in image):
        return Question(number, fields, error="image: standard input cannot be read for each line; want a path")
    request = Request(image, "" if prompt is None else prompt, ids, specials=specials)
    return Question(number, fields, request)


def answer_group(model: Model, group: list[Question], settings: dict[str, Any]) -> list[Answer | str]:
    """Answer questions side by side; where that fails, one by one, so that one bad question spoils no other.

    Returns
    -------
    answers : list of (Answer or str)
        A string is the reason why there is no answer.
    """
    requests = [question.request for question in group if question.request is not None]
    if len(requests) == len(group):
        try:
            return list(generate_batch(model, requests, **settings))
        except NpgemmaError as problem:
            if len(group) == 1:
                return [str(problem)]
    elif len(group) == 1:
        return [group[0].error]
    return [answer_group(model, [question], settings)[0] for question in group]


def outcome(answer: Answer | str, question: Question, find: Finder) -> dict[str, Any]:
    """Give the part of an output line that the model made."""
    if isinstance(answer, str):
        return {"error": " ".join(answer.split())}
    return answer_fields(answer, question.fields.get("image"), find) | {"notes": answer.notes}


def write_line(output: Lines | None, fields: dict[str, Any]) -> None:
    """Write one line: to the disk, or to standard output."""
    if output is None:
        printer.say_json(fields)
    else:
        output.add(as_line(fields))


def as_line(fields: dict[str, Any]) -> bytes:
    """Give the bytes of one line."""
    return printer.as_json(fields).encode() + b"\n"


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[Lines | None]:
    """Open the output for adding to it, by nobody else meanwhile; None stands for standard output."""
    if args.output is None:
        yield None
        return
    if args.batch != "-" and os.path.exists(args.output) and os.path.samefile(args.batch, args.output):
        raise InputError(f"{args.output}: holds the questions, which would be lost; choose another --output")
    with growing(args.output) as lines:
        yield lines


def mark_of(model: Model, args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """Give a short mark of whatever changes an answer, so that answers of different runs are not mixed."""
    chosen = {name: value for name, value in settings.items() if name != "allowed"}
    pieces = () if model.tokenizer is None else model.tokenizer.vocabulary.pieces
    whole = [
        args.model, args.dtype, args.precision, args.boxes_only, args.allow_specials, chosen,
        args.codec, args.masks_as, args.min_confidence,
        repr(model.config), repr(model.image_settings), fingerprint("\0".join(pieces).encode()),
        {name: sample(array) for name, array in model.weights.arrays.items()},
    ]
    return fingerprint(json.dumps(whole, sort_keys=True).encode())[:12]


def sample(array: np.ndarray) -> str:
    """Give a few numbers of a weight: another training has changed some of them, no file is read whole."""
    flat = array.reshape(-1)
    return fingerprint(flat[:: max(1, flat.size // 8)].tobytes())


def fingerprint(data: bytes) -> str:
    """Give a hash of bytes."""
    return hashlib.sha256(data).hexdigest()


def finished_lines(output: Lines | None, questions: list[Question], mark: str) -> list[dict[str, Any]]:
    """Read the answers that the output holds already; a line without its end is cut off.

    Raises
    ------
    InputError
        If it holds anything else, or answers to other questions, or of another model or other settings.
    """
    data = b"" if output is None else output.read()
    if output is None or not data:
        return []
    path = output.path
    # Looked for before a line without its end is cut off: such is the whole of many a file.
    if not MARKED.match(data):
        raise InputError(f"{path}: holds something else than answers of --batch; choose another --output")
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.split(b"\n")[:-1]  # splitlines() would end one at a \r too
    found = [check_finished(path, line, question, mark) for line, question in zip(lines, questions, strict=False)]
    if len(lines) > len(questions):
        raise InputError(f"{path}: holds {len(lines)} answers to {len(questions)} questions; choose another --output")
    if len(whole) < len(data):
        output.cut(len(whole))
    return found


def check_finished(path: Path, line: bytes, question: Question, mark: str) -> dict[str, Any]:
    """Read an output line, and refuse one that does not answer ``question`` in this run.

    Where there is no answer yet, the question may have been put right since.
    """
    found: dict[str, Any] = {}
    try:
        found = parse_json(line, str(path), InputError)
        same = found["line"] == question.line and ("error" in found or found["question"] == question.fields)
        same_run = found["run"] == mark
    except (InputError, KeyError):
        same = same_run = False
    if not same:
        raise InputError(
            f"{path}: its line does not answer line {question.line} of the questions; choose another --output"
        )
    if not same_run:
        raise InputError(f"{path}: was made by another model or other settings; choose another --output")
    return found
