"""From pictures and prompts to a batch that the model can read, and its prefill.

Letters: B requests, M pictures of one, I different pictures of all, R image side, P patches, D width, T length of the
longest prompt, V vocabulary.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from npgemma import paligemma
from npgemma.base import inputs
from npgemma.base.cache import State
from npgemma.base.device import wait_for
from npgemma.base.errors import InputError, InputTypeError
from npgemma.config import Config
from npgemma.files.image import load_pixels
from npgemma.generation.settings import check_ids
from npgemma.words.prompt import build_prompt

# Prompts are read side by side where padding the shortest to the longest costs little: so many times its length, or so
# many ids, which take as long to read as one step of the answers, shared by all, takes.
LENGTH_RATIO, LENGTH_SLACK = 1.25, 32

# Bytes of soft tokens kept for further questions: of 128 pictures of 224 pixels in a 3B model.
KEPT_BYTES = 1 << 28


@dataclass(frozen=True)
class Request:
    """One question.

    Parameters
    ----------
    image : picture or list of pictures, optional
        Each a path, the bytes of a file, a PIL image, or an array (H, W, 3) of uint8.  None: text only.
    prompt : str
        One newline is appended, as Hugging Face does.
    ids : sequence of int, optional
        Instead of a prompt: all ids, with an image token wherever a soft token goes.  Needs no tokenizer.
    pixels : (M, R, R, 3), optional
        Instead of ``image``: floats in [-1, 1], as the vision tower takes them.
    specials : {'refuse', 'allow'}
        Whether the prompt may hold tokens such as ``<loc0512>``.
    """

    image: Any = None
    prompt: str = ""
    ids: Sequence[int] | None = None
    pixels: Any = None
    specials: str = "refuse"


@dataclass(frozen=True)
class Ready:
    """A request in numbers: its ids, its pictures, what its user should know, and the pictures as they were given."""

    ids: list[int]
    pixels: np.ndarray
    notes: list[str] = field(default_factory=list)
    image: Any = None


@dataclass(frozen=True)
class Prefilled:
    """What steps go on from, a row a request.

    Parameters
    ----------
    logits : (B, V)
        Of the first token of each answer.
    state : State
    positions : (B)
        Of the first token of each answer.
    seconds : dict of str to float
    """

    logits: np.ndarray
    state: State
    positions: np.ndarray
    seconds: dict[str, float]


def prepare(model: paligemma.Model, request: Request) -> Ready:
    """Read the pictures and tokenise the prompt.

    Raises
    ------
    InputError
        If the request gives a thing twice, or a prompt to a model without a tokenizer.
    """
    check_model(model)
    if not isinstance(request, Request):
        raise InputTypeError(f"one came as {type(request).__name__}; want Request(image, prompt)", argument="requests")
    request = replace(request, image=listed_pictures(request.image))
    R, P = model.config.vision.image_size, model.config.vision.num_patches
    if request.image is not None and request.pixels is not None:
        raise InputError("image and pixels are both given; want one of them")
    notes: list[str] = []
    if request.pixels is not None:
        pixels = inputs.as_pixels(request.pixels)
        if pixels.ndim != 4 or pixels.shape[1:] != (R, R, 3):
            raise InputError(f"came as {pixels.shape}; want (pictures of the prompt, {R}, {R}, 3)", argument="pixels")
    else:
        pixels, notes = load_pixels([] if request.image is None else request.image, R, model.image_settings)
    if request.ids is not None:
        if request.prompt:
            raise InputError("prompt and ids are both given; want one of them")
        return Ready(checked_ids(request.ids, model.config), pixels, notes, request.image)
    if model.tokenizer is None:
        raise InputError(
            f"the model {model.name!r} has no tokenizer (tokenizer.model, tokenizer.json), so it takes no prompt;"
            " pass ids (--ids)"
        )
    context = model.config.text.max_positions
    prompt = build_prompt(model.tokenizer, request.prompt, len(pixels), P, specials=request.specials, context=context)
    return Ready(prompt.ids, pixels, [*notes, *prompt.notes], request.image)


def listed_pictures(image: Any) -> Any:
    """Give one picture as it is, several as a list.

    Raises
    ------
    InputError
        If the list is empty: leaving a picture out by accident would be answered without a word.
    """
    if image is None or isinstance(image, Image.Image | np.ndarray | Path) or image and isinstance(image, str | bytes):
        return image
    pictures = list(image) if isinstance(image, Iterable) else [image]
    if not pictures:
        raise InputError(f"came as {image!r:.80}, without a picture; leave it out for text only", argument="image")
    if isinstance(image, Mapping) or not isinstance(image, Iterable):
        raise InputTypeError(f"came as {type(image).__name__}; want a picture, or a list of them", argument="image")
    return pictures


def check_model(model: Any) -> None:
    """Refuse what is no model."""
    if not isinstance(model, paligemma.Model):
        raise InputTypeError(f"came as {type(model).__name__}; want what npgemma.load gives", argument="model")


def checked_ids(ids: Any, cfg: Config) -> list[int]:
    """Give ids as a list, if they are one of the model's vocabulary or its image token."""
    if isinstance(ids, str) or not hasattr(ids, "__len__") or not len(ids):
        raise InputError(f"came as {ids!r}; want a list of whole numbers, at least one", argument="ids")
    check_ids("ids", ids, max(cfg.text.vocab_size, cfg.image_token_id + 1))
    return [int(token) for token in ids]


class Seen:
    """What the vision tower saw of the latest pictures, so that further questions about one need not look again.

    Parameters
    ----------
    room : int
        Bytes to keep; what was needed longest ago goes first.
    """

    def __init__(self, room: int = KEPT_BYTES) -> None:
        self.room = room
        self.kept: dict[bytes, Any] = {}
        self.asked = self.looked = 0
        self.seconds = 0.0

    def soft_tokens(self, w, cfg, pictures):
        """Give soft tokens (pictures, P, D) of pictures, each (R, R, 3); the tower runs once, for the new ones."""
        marks = [hashlib.sha256(picture.tobytes()).digest() for picture in pictures]
        new = {mark: picture for mark, picture in zip(marks, pictures, strict=True) if mark not in self.kept}
        if new:
            started = time.perf_counter()
            soft = paligemma.see(w, cfg, np.stack(list(new.values())))
            wait_for(soft)
            self.kept |= zip(new, soft, strict=True)
            self.seconds += time.perf_counter() - started
        self.asked += len(pictures)
        self.looked += len(new)
        for mark in marks:
            self.kept[mark] = self.kept.pop(mark)  # the latest stand last
        soft = np.stack([self.kept[mark] for mark in marks])
        while len(self.kept) > max(1, self.room // soft[0].nbytes):
            del self.kept[next(iter(self.kept))]
        return soft

    def saved(self) -> list[str]:
        """Say, in a line if it is anything, what was saved."""
        if self.asked == self.looked:
            return []
        seconds = self.seconds / self.looked * (self.asked - self.looked)
        ran = f"the vision tower ran {self.looked} times for {self.asked} pictures"
        return [f"{ran}, which saved about {seconds:.2g} s"]


def look(w, cfg, requests: Sequence[Ready], seen: Seen | None = None):
    """Run the vision tower once for each different picture.

    Parameters
    ----------
    w : Weights
    cfg : Config
    requests : sequence of Ready
    seen : Seen, optional
        What was seen before; the tower runs for other pictures only.

    Returns
    -------
    soft : (pictures of all requests, P, D) or None
        In the order of the rows; requests about one picture share what was seen.
    """
    pictures = [picture for request in requests for picture in request.pixels]
    return (seen or Seen()).soft_tokens(w, cfg, pictures) if pictures else None


def length_classes(requests: Sequence[Ready]) -> list[list[int]]:
    """Sort requests, by their numbers, into groups of about one length, which are read side by side."""
    classes: list[list[int]] = []
    for number in sorted(range(len(requests)), key=lambda number: len(requests[number].ids)):
        length = len(requests[number].ids)
        shortest = len(requests[classes[-1][0]].ids) if classes else 0
        if not classes or length > max(LENGTH_RATIO * shortest, shortest + LENGTH_SLACK):
            classes.append([])
        classes[-1].append(number)
    return classes


def prefill(
    model: paligemma.Model, requests: Sequence[Ready], observe=None, seen: Seen | None = None
) -> Prefilled:
    """Read all prompts at once, shorter ones padded on the left.

    Parameters
    ----------
    model : Model
    requests : sequence of B Ready
    observe : callable, optional
        Sees each tensor, as in :func:`npgemma.forward`.
    seen : Seen, optional
        As in :func:`look`.

    Returns
    -------
    prefilled : Prefilled
    """
    cfg = model.config
    w = model.weights if observe is None else model.weights.watched_by(observe)
    started = time.perf_counter()
    soft = look(w, cfg, requests, seen)
    looked = time.perf_counter()
    ids, attention_mask = pad_left([request.ids for request in requests], cfg.pad_id)
    positions = inputs.counted_positions(attention_mask, cfg)
    logits, state = paligemma.prefill(w, cfg, ids, soft, np.zeros_like(ids), attention_mask, positions, last_only=True)
    wait_for(logits)
    seconds = {"vision": looked - started, "prefill": time.perf_counter() - looked}
    return Prefilled(logits[:, 0], state, w.beside(positions[:, -1] + 1), seconds)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int):
    """Give rows of one length, and where they are real.

    Returns
    -------
    ids : (B, T)
    attention_mask : (B, T)
        0 for padding, 1 for real ids.

    Notes
    -----
    Padding gets token type 0 like the prompt; nobody looks at it.
    """
    T = max(len(row) for row in rows)
    ids = np.array([[pad_id] * (T - len(row)) + list(row) for row in rows], dtype=np.int64)
    attention_mask = np.array([[0] * (T - len(row)) + [1] * len(row) for row in rows], dtype=np.int64)
    return ids, attention_mask
