"""An answer's boxes and masks in the picture that was asked about, and how sure the model was of each.

Confidence is the geometric mean of the probabilities of tokens: of four locations and the label for a box, of sixteen
codes for a mask.  (Their product, ``probability``, is small for every answer of many tokens.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma.base.errors import InputError
from npgemma.base.weights import Weights
from npgemma.generation.answers import Answer
from npgemma.generation.boxes import original
from npgemma.paligemma import Model
from npgemma.places.codec_file import where_to_put_one
from npgemma.places.polygons import outlines
from npgemma.places.run_lengths import encode_runs
from npgemma.places.segments import WAYS, check_way, paint_mask
from npgemma.words.locations import SEGMENT, Box, Unread, has_locations, read_object
from npgemma.words.tokenizer import TextStream, Tokenizer


@dataclass(frozen=True, eq=False)
class Place:
    """An object in a picture.

    Attributes
    ----------
    box : Box
        Label, corners in pixels, and the codes of its mask if it has any.
    mask : (H, W) of bool, or None
        As large as the picture.
    unmasked : str
        Why there is no mask, where there are codes for one.
    box_logprobs, mask_logprobs : tuple of float
        Of the tokens of each; none where they are not known.
    """

    box: Box
    mask: np.ndarray | None = None
    unmasked: str = ""
    box_logprobs: tuple[float, ...] = ()
    mask_logprobs: tuple[float, ...] = ()

    @property
    def confidence(self) -> float:
        """How sure the model was of the box, from 0 to 1; nan where it is not known."""
        return mean_probability(self.box_logprobs)

    @property
    def mask_confidence(self) -> float:
        """How sure the model was of the mask, from 0 to 1; nan where there is none."""
        return mean_probability(self.mask_logprobs)

    @property
    def probability(self) -> float:
        """Of exactly these tokens, label and codes included; nan where it is not known."""
        return math.exp(sum(self.box_logprobs + self.mask_logprobs)) if self.box_logprobs else math.nan

    def as_object(self) -> dict[str, Any]:
        """Give what ``--json`` prints; polygons only where the mask has no hole."""
        found = self.box.as_object()
        if self.box_logprobs:
            found |= {"confidence": self.confidence, "probability": self.probability}
        if self.mask is not None:
            found |= {"mask": encode_runs(self.mask)}
            polygons = outlines(self.mask)
            found |= {} if polygons is None else {"polygons": polygons}
        if self.mask_logprobs:
            found |= {"mask_confidence": self.mask_confidence}
        return found | ({"unmasked": self.unmasked} if self.unmasked else {})


def mean_probability(logprobs: Sequence[float]) -> float:
    """Give the geometric mean of probabilities."""
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else math.nan


def locate(
    model: Model,
    answer: Answer,
    image: Any,
    codec: Weights | None = None,
    *,
    way: str = "big_vision",
    min_confidence: float = 0.0,
) -> tuple[list[Place], list[Unread]]:
    """Read an answer as objects in the picture that it is about.

    Parameters
    ----------
    model : Model
        That gave the answer.
    answer : Answer
    image : picture
        As it was given to :func:`npgemma.generate`.
    codec : Weights, optional
        As :func:`npgemma.load_codec` gives it.  Without one, codes stay numbers.
    way : {"big_vision", "demo"}
        Whose reading of locations and masks; see :func:`npgemma.places.segments.paint_mask`.
    min_confidence : float
        Boxes below it are left out, and so are masks below it.

    Returns
    -------
    places : list of Place
        In the order of the answer.
    unread : list of Unread
        Parts of the answer that are no objects, with the reason; none for an answer that speaks of no places.
    """
    check_way(way)
    check_confidence(min_confidence)
    picture = original(model, image) if has_locations(answer.text) else None
    if picture is None:
        return [], []
    places, unread, start = [], [], 0
    tokens = token_places(model.tokenizer, answer)
    for part in answer.text.split(";"):
        found = read_object(part.strip(), picture.size, WAYS[way])
        if isinstance(found, Unread):
            unread.append(found)
        else:
            place = place_of(found, tokens_of(part, start, tokens), codec, picture.size, way, min_confidence)
            places += [] if place.confidence < min_confidence else [place]
        start += len(part) + 1
    return places, unread


def check_confidence(least: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= least <= 1:
        raise InputError(f"came as {least}; want 0 to 1", argument="min_confidence")


def place_of(box, logprobs, codec, size, way, min_confidence) -> Place:
    """Give a box with its mask, or with the reason why it has none."""
    box_logprobs, mask_logprobs = logprobs
    mask, reason = None, ""
    if box.segments and mean_probability(mask_logprobs) < min_confidence:
        reason = f"its codes are less sure than {min_confidence}"
    elif box.segments and codec is None:
        reason = f"the model has no mask codec; {where_to_put_one()}"
    elif box.segments:
        mask = paint_mask(codec, box, size, way)
        reason = "its box holds no whole pixel" if mask is None else ""
    return Place(box, mask, reason, box_logprobs, mask_logprobs)


def token_places(tokenizer: Tokenizer, answer: Answer) -> list[tuple[int, int, float]]:
    """List where in the text each token of an answer stands, first and last character, and its log-probability."""
    stream, reached, found = TextStream(tokenizer), 0, []
    for token, logprob in zip(answer.ids, answer.logprobs, strict=False):
        before = reached
        reached += len(stream.push(token))
        found.append((before, reached, logprob))
    return found


def tokens_of(part: str, start: int, tokens) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the log-probabilities of the tokens of a box and its label, and of those of its codes.

    ``part`` stands from ``start`` on in the answer's text; ``tokens`` is what :func:`token_places` gives.
    """
    codes = [match.span() for match in SEGMENT.finditer(part)]
    first, last = (start + codes[0][0], start + codes[-1][1]) if codes else (-1, -1)
    # A space beside a semicolon belongs to how objects are joined, not to one of them.
    begin, end = start + len(part) - len(part.lstrip()), start + len(part.rstrip())
    inside = [(token_end <= last and token_start >= first, logprob) for token_start, token_end, logprob in tokens
              if begin <= token_start and token_end <= end and token_start < token_end]
    return tuple(p for code, p in inside if not code), tuple(p for code, p in inside if code)
