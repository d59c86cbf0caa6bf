"""Boxes in answers: ``<locYMIN><locXMIN><locYMAX><locXMAX> label ; ...`` to pixels of the picture, and back.

Segment codes are kept as numbers here; :mod:`npgemma.places` makes masks of them.  Not supported: tables of the
PaliGemma 2 paper, which put x before y.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from npgemma.base.errors import InputError

LAST = 1023  # <loc0000> to <loc1023>
# big_vision encodes and evaluates with 1023; its demonstration, and others after it, decode with 1024.
DIVISORS = (1023, 1024)
CODES = 16  # <seg000> to <seg127>, sixteen an outline
LOCATION = re.compile(r"<loc(\d{4})>")
SEGMENT = re.compile(r"<seg(\d{3})>")
# Matches any text: both runs of tokens may be empty, and the label is all that follows.
OBJECT = re.compile(r"((?:<loc\d{4}>)*)((?:<seg\d{3}>)*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Box:
    """An object that an answer places.

    Attributes
    ----------
    label : str
        Empty where the answer gives none.
    corners : (4)
        Left, top, right and bottom edge in pixels of the picture; the right edge of the last pixel is its width.
    segments : tuple of int
        Sixteen codes of an outline inside the box, or none.
    """

    label: str
    corners: tuple[float, float, float, float]
    segments: tuple[int, ...] = ()

    def as_object(self) -> dict[str, object]:
        """Give what ``--json`` prints."""
        found: dict[str, object] = {"label": self.label, "box": list(self.corners)}
        return found | {"segments": list(self.segments)} if self.segments else found


@dataclass(frozen=True)
class Unread:
    """A part of an answer that is no box: the text as it came, and why."""

    text: str
    reason: str

    def as_object(self) -> dict[str, object]:
        """Give what ``--json`` prints."""
        return {"unread": self.text, "reason": self.reason}


def has_locations(text: str) -> bool:
    """Say whether an answer speaks of places at all; a caption does not."""
    return LOCATION.search(text) is not None


def read_boxes(text: str, size: tuple[int, int], divisor: int = 1023) -> tuple[list[Box], list[Unread]]:
    """Read the boxes of an answer.

    Parameters
    ----------
    text : str
        Objects joined by ``;``, as the model writes them.  An answer that is empty has no objects.
    size : (2)
        Width and height of the original picture in pixels: locations count along its sides, whatever shape it has.
    divisor : {1023, 1024}
        What a location is divided by.

    Returns
    -------
    boxes : list of Box
        In the order of the answer.
    unread : list of Unread
        Parts that are no boxes.
    """
    check(size, divisor)
    boxes: list[Box] = []
    unread: list[Unread] = []
    for part in text.split(";") if text.strip() else []:
        found = read_object(part.strip(), size, divisor)
        boxes.append(found) if isinstance(found, Box) else unread.append(found)
    return boxes, unread


def read_object(part: str, size: tuple[int, int], divisor: int) -> Box | Unread:
    """Read one object: four locations, perhaps sixteen segment codes, a label."""
    first, second, rest = OBJECT.findall(part)[0]
    places = [int(digits) for digits in LOCATION.findall(first)]
    segments = tuple(int(digits) for digits in SEGMENT.findall(second))
    label = rest.strip()
    reason = what_is_wrong(places, segments, label)
    if reason:
        return Unread(part, reason)
    top, left, bottom, right = (place / divisor for place in places)
    width, height = size
    return Box(label, (left * width, top * height, right * width, bottom * height), segments)


def what_is_wrong(places: list[int], segments: tuple[int, ...], label: str) -> str:
    """Say why this is no box, or nothing."""
    if not places:
        return "it does not begin with <loc....>; want four, for top, left, bottom and right"
    if len(places) != 4:
        return f"it begins with {len(places)} locations; want 4, for top, left, bottom and right"
    if max(places) > LAST:
        return f"<loc{max(places):04d}> is past <loc{LAST}>"
    if places[0] > places[2]:
        return f"its top {places[0]} is below its bottom {places[2]}"
    if places[1] > places[3]:
        return f"its left {places[1]} is right of its right {places[3]}"
    if segments and len(segments) != CODES:
        return f"it has {len(segments)} segment codes; want {CODES} or none"
    if segments and max(segments) > 127:
        return f"<seg{max(segments):03d}> is past <seg127>"
    if "<loc" in label or "<seg" in label:
        return "its label holds more <loc> or <seg> tokens"
    return ""


def write_boxes(boxes: Iterable[Box], size: tuple[int, int], divisor: int = 1023) -> str:
    """Write boxes as an answer: the inverse of :func:`read_boxes`.

    Edges outside the picture are moved to its border; edges between two locations to the nearer one.

    Raises
    ------
    InputError
        If a box is turned inside out, or a label could not be read again.
    """
    check(size, divisor)
    return " ; ".join(write_object(box, size, divisor) for box in boxes)


def write_object(box: Box, size: tuple[int, int], divisor: int) -> str:
    """Write one object."""
    width, height = size
    left, top, right, bottom = box.corners
    edges = (top / height, left / width, bottom / height, right / width)
    if not (top <= bottom and left <= right):
        raise InputError(f"box {box.label!r}: corners came as {box.corners}; want left <= right and top <= bottom")
    if ";" in box.label or "<loc" in box.label or "<seg" in box.label:
        raise InputError(f"box {box.label!r}: a label with ';', '<loc' or '<seg' could not be read again; leave it out")
    places = "".join(f"<loc{min(LAST, max(0, round(edge * divisor))):04d}>" for edge in edges)
    codes = "".join(f"<seg{code:03d}>" for code in box.segments)
    return f"{places}{codes} {box.label}".rstrip()


def check(size: tuple[int, int], divisor: int) -> None:
    """Refuse a divisor that nobody uses, and a picture without pixels."""
    if divisor not in DIVISORS:
        raise InputError(f"divisor: came as {divisor!r}; want one of {DIVISORS}")
    if min(size) < 1:
        raise InputError(f"size: came as {tuple(size)}; want the picture's width and height in pixels")
