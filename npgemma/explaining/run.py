"""One run of the model, and what the page keeps of it: tensors by name, each with its line, and the answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from npgemma.base.describe import describe
from npgemma.base.errors import InputError
from npgemma.base.tensors import Call, Tensor
from npgemma.explaining.thinning import Thinning, spread, thinning
from npgemma.generation.answers import Answer
from npgemma.generation.boxes import original
from npgemma.generation.generate import generate
from npgemma.generation.requests import Request
from npgemma.generation.settings import check_whole
from npgemma.paligemma import Model
from npgemma.places.locate import Place
from npgemma.tracing.plan import Plan, Question, ask, plan
from npgemma.tracing.trace import Watch

# What the page shows at most: each is a row, and a column, of what it draws.
MOST_WORDS = 256
MOST_TOKENS = 64
ALWAYS = (
    "pixels", "vision.patches", "vision.embedded", "vision.norm", "connector.out", "ids", "token_types",
    "attention_mask", "positions", "text.embedded", "text.spliced", "mask.full", "mask.sliding", "text.cos", "text.sin",
    "text.norm", "text.logits",
)


@dataclass(frozen=True)
class Kept:
    """What a run will leave, known before it.

    Parameters
    ----------
    planned : Plan
        The tensors that are looked at, whole.
    thinning : Thinning
        What is kept of their positions.
    seeing, reading : tuple of int
        Blocks of the tower, and of the decoder, whose attention is kept.
    picture : Image or None
        In its own size.
    """

    planned: Plan
    thinning: Thinning
    seeing: tuple[int, ...]
    reading: tuple[int, ...]
    picture: Image.Image | None = None

    @property
    def nbytes(self) -> int:
        """At most so many bytes are kept."""
        floating = self.planned.model.weights.precision.dtype
        return sum(
            self.thinning.size(tensor.shape, tensor.letters) * tensor.dtype(floating).itemsize
            for tensor in self.planned.tensors.values()
        )

    @property
    def largest(self) -> int:
        """Bytes of the largest tensor that is looked at."""
        floating = self.planned.model.weights.precision.dtype
        return max(tensor.nbytes(floating) for tensor in self.planned.tensors.values())


@dataclass(frozen=True)
class Run:
    """What the panels read.

    Parameters
    ----------
    kept : Kept
    arrays : mapping of str to array
        The tensors; of a fine grid of patches, those of its squares.
    lines : mapping of str to str
        What :func:`npgemma.base.describe.describe` says of each whole tensor of the prompt.
    answer : Answer
    places : tuple of Place
        What the answer finds in the picture.
    """

    kept: Kept
    arrays: Mapping[str, np.ndarray]
    lines: Mapping[str, str]
    answer: Answer
    places: tuple[Place, ...] = ()

    @property
    def model(self) -> Model:
        """The model that ran."""
        return self.kept.planned.model

    @property
    def question(self) -> Question:
        """What it was asked."""
        return self.kept.planned.question

    @property
    def call(self) -> Call:
        """The sizes of the prompt's call."""
        return Call(1, int(self.sees), self.question.ids.shape[1], last_only=True)

    @property
    def sees(self) -> bool:
        """Whether there is a picture."""
        return self.question.pixels is not None

    @property
    def picture_name(self) -> str:
        """The picture's file, without its folder: the page may go to a friend."""
        return PurePath(self.question.image).name

    @property
    def opened(self) -> str:
        """The tower's block that is opened, ``vision.blocks.2``."""
        return f"vision.blocks.{middle(self.kept.seeing)}"

    @property
    def block(self) -> str:
        """The decoder's block that is opened, ``text.blocks.2``."""
        return f"text.blocks.{middle(self.kept.reading)}"

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> Tensor:
        """What the table says of a tensor."""
        return self.kept.planned.tensors[name]

    def steps(self, name: str) -> list[np.ndarray]:
        """A tensor of the prompt's last position, and of each token that was read after it, without B and T."""
        later = [f"step.{number}.{name}" for number in range(len(self.answer.ids) - 1)]
        return [self[each][0, -1] for each in (name, *later)]


def middle(blocks: tuple[int, ...]) -> int:
    """The one in the middle."""
    return blocks[len(blocks) // 2]


def prepared(model: Model, request: Request, max_tokens: int) -> Kept:
    """Work out what a run will leave.

    Raises
    ------
    InputError
        If there are several pictures, or more words or tokens than a page can show.
    """
    check_whole("max_new_tokens", max_tokens, 1, high=MOST_TOKENS)
    question = ask(model, request)
    if question.pixels is not None and question.pixels.shape[1] > 1:
        raise InputError(f"{question.pixels.shape[1]} pictures; a page explains what is done with one, or with none")
    cfg, thin = model.config, thinning(model.config, question.ids[0])
    words = len(question.ids[0]) - len(thin.image)
    if words > MOST_WORDS:
        raise InputError(f"the prompt has {words} tokens of text; a page shows at most {MOST_WORDS}; shorten it")
    seeing = spread(cfg.vision.depth, cfg.vision.num_heads, thin.squares**2) if thin.side else ()
    reading = spread(cfg.text.depth, cfg.text.num_heads, len(thin.positions) + max_tokens)
    everything = plan(model, question, max_new_tokens=max_tokens)
    wanted = [name for name in everything.tensors if is_wanted(name, seeing, reading)]
    tensors = {name: everything.tensors[name] for name in wanted}
    picture = original(model, request.image) if thin.side else None
    return Kept(replace(everything, tensors=tensors), thin, seeing, reading, picture)


def is_wanted(name: str, seeing: tuple[int, ...], reading: tuple[int, ...]) -> bool:
    """Tell whether a panel shows a tensor."""
    short = name.split(".", 2)[2] if name.startswith("step.") else name
    tower, _, rest = short.partition(".blocks.")
    if not rest:
        return short in ALWAYS
    number, _, what = rest.partition(".")
    blocks = seeing if tower == "vision" else reading
    if int(number) == middle(blocks) or what == "attn.probs" and int(number) in blocks:
        return True
    return what == "out"


def observed(kept: Kept, tell=None) -> Run:
    """Run the model, and keep what the panels need.

    Parameters
    ----------
    kept : Kept
    tell : callable, optional
        ``tell(done, total)`` is called as tensors come.
    """
    arrays: dict[str, np.ndarray] = {}
    lines: dict[str, str] = {}
    planned = kept.planned

    def put(name: str, x: np.ndarray) -> None:
        letters = planned.tensors[name].letters
        if not name.startswith("step."):
            lines[name] = describe(x, name, letters)
        arrays[name] = kept.thinning.thin(name, x, letters)
        if tell is not None:
            tell(len(arrays), len(planned.tensors))

    [ids], pixels = planned.question.ids.tolist(), planned.question.pixels
    watch: Any = Watch(planned, put)
    answer = generate(
        planned.model, ids=ids, pixels=None if pixels is None else pixels[0], max_new_tokens=planned.max_new_tokens,
        observe=watch,
    )
    return Run(kept, arrays, lines, answer)
