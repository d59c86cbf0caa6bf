"""Examples to learn from: lines of ``{"image": …, "prefix": …, "suffix": …}``, as big_vision and others have them.

Everything is looked at before the first step: a bad line is found in the first minute and not in the last hour.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base.errors import InputError, NpgemmaError
from npgemma.files.reader import parse_json, read_file
from npgemma.generation.requests import Request, prepare
from npgemma.learn.teaching import Batch, make_batch
from npgemma.paligemma import Model

MAX_BYTES = 2**30
FIELDS = ("image", "prefix", "suffix")
# How many bad lines are named; the others are counted.
NAMED = 20


@dataclass(frozen=True)
class Example:
    """One line: its number from 1, the picture's path, what is asked, what is right."""

    line: int
    image: str
    prefix: str
    suffix: str


def read_examples(path: Path | str, model: Model, specials: str = "allow", progress=None) -> list[Example]:
    """Read and check a file of examples; pictures are named from the file's own folder.

    Parameters
    ----------
    path : path
        ``.jsonl``
    model : Model
        Whose tokenizer and context each line must fit.
    specials : {"allow", "refuse"}
        Whether texts may hold tokens such as ``<loc0512>``.
    progress : callable, optional
        ``progress(lines done, lines)``.

    Raises
    ------
    InputError
        That names each bad line, with what is wrong with it.
    """
    path = Path(path)
    lines = read_file(path, MAX_BYTES, InputError).splitlines()
    examples: list[Example] = []
    faults: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                example = read_line(line, number, path)
                encode(model, example, specials)
                examples.append(example)
        except NpgemmaError as problem:
            faults.append(f"line {number}: {problem}")
        if progress is not None:
            progress(number, len(lines))
    if faults:
        more = [f"and {len(faults) - NAMED} more"] if len(faults) > NAMED else []
        raise InputError("; ".join([f"{path}: {len(faults)} of {len(lines)} lines are bad", *faults[:NAMED], *more]))
    if not examples:
        wanted = '{"image": "cat.jpg", "prefix": "caption en", "suffix": "a cat"}'
        raise InputError(f"{path}: holds no examples; want lines of {wanted}")
    return examples


def read_line(line: bytes, number: int, path: Path) -> Example:
    """Take one line apart."""
    fields = parse_json(line, "JSON", InputError)
    for name in FIELDS:
        if not isinstance(fields.get(name), str):
            came = f"is {fields[name]!r:.40}" if name in fields else "is missing"
            raise InputError(f"{name!r} {came}; want a text")
    if set(fields) - set(FIELDS):
        raise InputError(f"unknown field {min(set(fields) - set(FIELDS))!r:.40}; want {', '.join(FIELDS)}")
    if not fields["suffix"].strip():
        raise InputError("'suffix' is empty; want the right answer")
    if not fields["image"]:
        raise InputError("'image' is empty; want the path of a picture")
    return Example(number, str(path.parent / fields["image"]), fields["prefix"], fields["suffix"])


def encode(model: Model, example: Example, specials: str = "allow"):
    """Turn an example into (ids of the prompt, ids of the answer, pixels (1, R, R, 3))."""
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer; give a folder that has one")
    ready = prepare(model, Request(example.image, example.prefix, specials=specials))
    suffix = [*model.tokenizer.encode(example.suffix, specials), model.tokenizer.eos]
    context, length = model.config.text.max_positions, len(ready.ids) + len(suffix)
    if length > context:
        raise InputError(f"prompt and answer take {length} positions; the model has {context}; shorten them")
    return ready.ids, suffix, ready.pixels


def batch_of(model: Model, examples: Sequence[Example]) -> Batch:
    """Arrange examples as one batch."""
    encoded = [encode(model, example) for example in examples]
    pixels = np.concatenate([pixels for _, _, pixels in encoded])
    return make_batch(model.config, [(ids, suffix) for ids, suffix, _ in encoded], pixels)


def split(examples: Sequence[Example], held_out: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Set some examples aside, drawn by ``seed``: (to learn from, to be judged by)."""
    if not 0 <= held_out < len(examples):
        came = f"came as {held_out} of {len(examples)} examples"
        raise InputError(f"{came}; leave some to learn from", argument="held_out")
    order = np.random.default_rng([seed, 1]).permutation(len(examples))
    return [examples[n] for n in sorted(order[held_out:])], [examples[n] for n in sorted(order[:held_out])]


def drawn(examples: Sequence[Example], step: int, size: int, seed: int) -> list[Example]:
    """Give the examples of a step: each once in an epoch, in an order that follows from seed and epoch alone."""
    places = range(step * size, (step + 1) * size)
    orders: dict[int, Any] = {}
    chosen = []
    for place in places:
        epoch, nth = divmod(place, len(examples))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, 2, epoch]).permutation(len(examples))
        chosen.append(examples[orders[epoch][nth]])
    return chosen


def mark_of(examples: Sequence[Example], settings: str) -> str:
    """Tell one run from another: by its examples' texts and its settings."""
    digest = hashlib.sha256(settings.encode())
    for example in examples:
        digest.update(repr((Path(example.image).name, example.prefix, example.suffix)).encode())
    return digest.hexdigest()
