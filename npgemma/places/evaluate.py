"""Scores of many answers: which can be had follows from what is known of the right ones.

``answer`` or ``answers`` (texts) give exact match and ANLS, ten answers VQA accuracy, numbers relaxed accuracy;
``captions`` give CIDEr; ``objects``, each with a label, a box and perhaps a mask, give detection and segmentation.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma.base.errors import InputError
from npgemma.base.weights import Weights
from npgemma.places.captions import caption_words, cider
from npgemma.places.detection import Target, average_precision, mask_iou, match, overlap, reliability, surest
from npgemma.places.run_lengths import decode_runs
from npgemma.places.segments import paint_mask
from npgemma.places.text_scores import ANNOTATORS, anls, relaxed, vqa_accuracy
from npgemma.words.locations import Box, has_locations, read_boxes, read_object

SCORES = ("exact", "anls", "vqa", "relaxed", "cider", "detection", "boxacc", "masks")
# What big_vision's evaluator reads of an answer: its first object, and nothing behind its codes.
FIRST_MASK = re.compile(r"\s*((?:<loc\d{4}>){4}(?:<seg\d{3}>){16})")


@dataclass(frozen=True)
class Record:
    """An answer beside what is known of the right one: the fields of its line and of its question together."""

    place: str
    text: str
    fields: Mapping[str, Any]

    def read(self, name: str, good: Callable[[Any], bool], want: str) -> Any:
        """Give a field, or raise InputError if it is not as wanted."""
        value = self.fields[name]
        if not good(value):
            raise InputError(f"{self.place}: {name} came as {value!r:.60}; want {want}")
        return value

    @property
    def answers(self) -> list[str]:
        """The right answers: one, or those of several people."""
        if "answers" in self.fields:
            return list(self.read("answers", are_texts, "a list of texts"))
        return [self.read("answer", lambda value: isinstance(value, str), "a text")]

    @property
    def captions(self) -> list[str]:
        """People's captions."""
        return list(self.read("captions", are_texts, "a list of texts"))

    @property
    def objects(self) -> list[Mapping[str, Any]]:
        """The objects in the picture."""
        want = "a list of objects with 'label' and 'box', four numbers: left, top, right, bottom"
        return list(self.read("objects", lambda value: isinstance(value, list) and all(map(is_object, value)), want))

    def found(self) -> list[Target]:
        """The boxes of the answer, as its line has them or else from its text."""
        if "boxes" in self.fields:
            return [target_of(one) for one in
                    self.read("boxes", lambda value: isinstance(value, list) and all(map(is_object, value)), "boxes")]
        if not has_locations(self.text) or "unread" in self.fields:
            return []
        return [Target(box.label, box.corners) for box in read_boxes(self.text, self.size)[0]]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture: ``size``, or that of a mask that is wanted."""
        if "size" in self.fields:
            width, height = self.read("size", is_size, "[width, height] of the picture in pixels")
            return width, height
        masks = [decode_runs(one["mask"]) for one in self.objects if "mask" in one]
        if not masks:
            raise InputError(f"{self.place}: the boxes are in the text only; want 'size': [width, height] beside them")
        return masks[0].shape[1], masks[0].shape[0]


def evaluate(
    answers: Sequence[Mapping[str, Any]],
    *,
    scores: Sequence[str] | None = None,
    fold_case: bool = False,
    codec: Weights | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> dict[str, Any]:
    """Score answers against what is known of the right ones.

    Parameters
    ----------
    answers : sequence of mappings
        Each with ``text`` and, beside it or in ``question``, one of ``answer`` (text), ``answers`` (list of texts),
        ``captions`` (list of texts), ``objects`` (list of ``{"label", "box": [left, top, right, bottom], "crowd",
        "mask": run-lengths}``).  Lines of ``npgemma generate --batch`` are such.
    scores : sequence of str, optional
        Of :data:`SCORES`; whatever can be had if left out.
    fold_case : bool
        Compare exact match, ANLS and relaxed accuracy in lower case; VQA's rule and CIDEr always do.
    codec : Weights, optional
        For masks that are in the text only.
    progress : callable, optional
        ``progress(scores done, scores)``

    Returns
    -------
    found : dict
        Numbers by name, each with ``<name>/count``, how many answers it is of.

    Raises
    ------
    InputError
        If a line is none, or a score cannot be had.
    """
    records = [record_of(one, number) for number, one in enumerate(answers, start=1)]
    unknown = [name for name in scores or () if name not in SCORES]
    if unknown:
        raise InputError(f"came as {unknown[0]!r}; want one of {', '.join(SCORES)}", argument="scores")
    found: dict[str, Any] = {}
    for number, name in enumerate(SCORES if scores is None else scores):
        if progress is not None:
            progress(number, len(SCORES if scores is None else scores))
        fitting = [one for one in records if fits(name, one)]
        if not fitting and scores is not None:
            raise InputError(f"{name}: none of {len(records)} answers has what it is held against", argument="scores")
        if fitting:
            found |= score_of(name, fitting, fold_case, codec) | {f"{name}/count": len(fitting)}
    if not found:
        keys = "answer, answers, captions or objects"
        raise InputError(f"nothing to hold {len(records)} answers against; want {keys} beside each, or in its question")
    return found


def record_of(line: Any, number: int) -> Record:
    """Read one line; what it says itself goes before what its question says."""
    place = f"line {number}"
    if not isinstance(line, Mapping):
        raise InputError(f"{place}: came as {type(line).__name__}; want an object with 'text'")
    question = line.get("question", {})
    fields = (dict(question) if isinstance(question, Mapping) else {}) | dict(line)
    text = "" if "error" in line else fields.get("text")
    if not isinstance(text, str):
        raise InputError(f"{place}: has no 'text'; want the answer")
    return Record(place, text, fields)


def fits(name: str, record: Record) -> bool:
    """Tell whether an answer can have a score."""
    if name in ("exact", "anls"):
        return "answer" in record.fields or "answers" in record.fields
    if name == "relaxed":
        return "answer" in record.fields
    if name == "vqa":
        return "answers" in record.fields and len(record.answers) == ANNOTATORS
    if name == "cider":
        return "captions" in record.fields
    if "objects" not in record.fields:
        return False
    return name == "detection" or len(record.objects) == 1 and (name == "boxacc" or "mask" in record.objects[0])


def score_of(name: str, records: Sequence[Record], fold_case: bool, codec: Weights | None) -> dict[str, float]:
    """Give one score over the answers that can have it."""
    fold = str.lower if fold_case else str
    if name == "vqa":
        return {"vqa": mean(vqa_accuracy(one.text, one.answers) for one in records)}
    if name == "exact":
        return {"exact": mean(fold(one.text) in map(fold, one.answers) for one in records)}
    if name == "anls":
        return {"anls": mean(anls(fold(one.text), [fold(other) for other in one.answers]) for one in records)}
    if name == "relaxed":
        return {"relaxed": mean(relaxed(fold(one.text), fold(one.answers[0])) for one in records)}
    if name == "cider":
        references = [[caption_words(caption) for caption in one.captions] for one in records]
        return {"cider": mean(cider([caption_words(one.text) for one in records], references))}
    if name == "detection":
        wanted = [[target_of(thing) for thing in one.objects] for one in records]
        precisions = average_precision([one.found() for one in records], wanted)
        return {"detection/mAP": float(np.mean(precisions)), "detection/AP50": float(precisions[0])}
    if name == "boxacc":
        overlaps = [first_overlap(one) for one in records]
        return {f"boxacc/{least}": mean(one >= least for one in overlaps) for least in (0.5, 0.75)}
    ious = [first_iou(one, codec) for one in records]
    return {"masks/mIoU": mean(iou or 0.0 for iou in ious), "masks/invalid": float(sum(iou is None for iou in ious))}


def mean(values) -> float:
    """Give the mean of numbers or booleans."""
    return float(np.mean([float(value) for value in values]))


def first_overlap(record: Record) -> float:
    """Give the IoU of the first box with the wanted one."""
    boxes = record.found()
    return overlap(boxes[0].corners, target_of(record.objects[0]).corners) if boxes else 0.0


def first_iou(record: Record, codec: Weights | None) -> float | None:
    """Give the IoU of the first mask with the wanted one; None where the answer has none."""
    wanted = decode_runs(record.objects[0]["mask"])
    boxes = record.fields.get("boxes") or [{}]
    if is_object(boxes[0]) and "mask" in boxes[0]:
        mask = decode_runs(boxes[0]["mask"])
        if mask.shape != wanted.shape:
            raise InputError(f"{record.place}: the mask is {mask.shape}, the wanted one {wanted.shape}")
        return mask_iou(mask, wanted)
    first = FIRST_MASK.match(record.text)
    box = read_object(first[1], (wanted.shape[1], wanted.shape[0]), 1023) if first else None
    if not isinstance(box, Box):
        return None
    if codec is None:
        raise InputError(f"{record.place}: its mask is in the text only; a mask codec makes it one", argument="codec")
    painted = paint_mask(codec, box, (wanted.shape[1], wanted.shape[0]))
    return None if painted is None else mask_iou(painted, wanted)


def confidence_table(answers: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """Tell what the confidence of boxes is worth, in ten bins: how many, their mean, and the part with an IoU of 0.5.

    ``answers`` as :func:`evaluate` takes them, those that have ``objects``.
    """
    sure: list[float] = []
    right: list[bool] = []
    for number, line in enumerate(answers, start=1):
        record = record_of(line, number)
        if "objects" not in record.fields:
            continue
        boxes, wanted = record.found(), [target_of(one) for one in record.objects]
        for label in sorted({box.label for box in boxes}):
            ours = surest([box for box in boxes if box.label == label])
            hits, _ = match(ours, [one for one in wanted if one.label == label])
            sure += [box.confidence for box in ours]
            right += hits[0].tolist()
    return reliability(sure, right)


def target_of(thing: Mapping[str, Any]) -> Target:
    """Read one object of a line."""
    confidence = thing.get("confidence")
    corners = tuple(float(edge) for edge in thing["box"])
    return Target(thing["label"], corners, 1.0 if confidence is None else float(confidence), bool(thing.get("crowd")))


def is_object(value: Any) -> bool:
    """Tell whether a value has a label and a box."""
    if not isinstance(value, Mapping) or not isinstance(value.get("label"), str):
        return False
    box, confidence = value.get("box"), value.get("confidence", 1.0)
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, [*box, confidence])):
        return False
    return box[0] <= box[2] and box[1] <= box[3]


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def are_texts(value: Any) -> bool:
    """Tell whether a value is a list of at least one text."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(one, str) for one in value)


def is_size(value: Any) -> bool:
    """Tell whether a value is a picture's width and height."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)
