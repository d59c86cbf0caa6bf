"""Sizes: which weights a model has, which tensors a call computes, in order, and how large each is.

All of it comes from :mod:`npgemma.base.table`; a step is a call with a past.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from npgemma.base.table import ROWS, WEIGHTS, Row, Weight
from npgemma.config import Config

Entry = TypeVar("Entry", Row, Weight)


@dataclass(frozen=True)
class Parameter:
    """One weight: its shape in letters and in numbers, what it is, and whether it may stay 16-bit as stored."""

    letters: str
    shape: tuple[int, ...]
    meaning: str
    matrix: bool = False


@dataclass(frozen=True)
class Call:
    """The sizes of one call of the model, beside its configuration.

    Parameters
    ----------
    batch : int
        B.
    pictures : int
        I, of the whole batch; 0 leaves the vision tower out.
    length : int
        T.
    past : int
        S - T: more than 0 describes a step, which has no pictures and nothing to splice.
    last_only : bool
        Whether logits are made for one position of each row only.
    """

    batch: int = 1
    pictures: int = 1
    length: int = 1
    past: int = 0
    last_only: bool = False


@dataclass(frozen=True)
class Tensor:
    """One named tensor of a call.

    Parameters
    ----------
    letters : str
        Its axes, ``B K G T S``.
    shape : tuple of int
    row : Row
        What the table says of it.
    """

    letters: str
    shape: tuple[int, ...]
    row: Row = field(repr=False)

    @property
    def kind(self) -> str:
        """``float``, ``integer`` or ``boolean``."""
        if self.row.name.startswith("mask."):
            return "boolean"
        return "integer" if self.row.name in ("ids", "token_types", "attention_mask", "positions") else "float"

    def dtype(self, floating) -> np.dtype:
        """The dtype in a run whose floating arrays are ``floating``."""
        return np.dtype({"float": floating, "integer": np.int64, "boolean": np.bool_}[self.kind])

    def nbytes(self, floating) -> int:
        """Bytes of the array in such a run."""
        return math.prod(self.shape) * self.dtype(floating).itemsize


def schema(cfg: Config) -> dict[str, Parameter]:
    """List each weight of a model, in order of use.

    Returns
    -------
    parameters : dict of str to Parameter
        Text logits have none of their own: they read ``text.embedded.weight``, the tied embedding table.
    """
    found, known = {}, sizes_by_tower(cfg, Call())
    for name, weight in in_blocks(WEIGHTS, cfg):
        shape = in_numbers(weight.letters, known[tower_of(name)])
        found[f"{name}.weight"] = Parameter(weight.letters, shape, weight.meaning, weight.matrix)
        if weight.bias:
            found[f"{name}.bias"] = Parameter(weight.letters.split()[0], shape[:1], f"{weight.meaning}, bias")
    return found


def tensors(
    cfg: Config, batch: int = 1, pictures: int = 1, length: int = 1, past: int = 0, last_only: bool = False
) -> dict[str, Tensor]:
    """List each tensor of one call, in order of execution; the arguments are those of :class:`Call`."""
    call = Call(batch, pictures, length, past, last_only)
    found, known = {}, sizes_by_tower(cfg, call)
    for name, row in in_blocks(ROWS, cfg):
        if is_computed(name, call):
            letters = "B 1 V" if last_only and name == "text.logits" else row.axes
            found[name] = Tensor(letters, in_numbers(letters, known[tower_of(name)]), row)
    return found


def in_blocks(rows: Iterable[Entry], cfg: Config) -> Iterator[tuple[str, Entry]]:
    """Go through rows in order of execution, with the full name of each; a block's rows come once a block."""
    existing = [row for row in rows if not row.needs or getattr(cfg.text, row.needs)]
    for (tower, in_block), group in itertools.groupby(existing, lambda row: (tower_of(row.name), "{n}" in row.name)):
        together = list(group)
        for n in range(getattr(cfg, tower).depth if in_block else 1):
            yield from ((row.name.format(n=n), row) for row in together)


def tower_of(name: str) -> str:
    """``vision`` or ``text``: whose configuration a name's letters belong to."""
    return "vision" if name.startswith(("vision.", "pixels")) else "text"


def is_computed(name: str, call: Call) -> bool:
    """Tell whether a call computes a tensor: a step splices nothing, and who has no picture sees none."""
    if name.startswith(("pixels", "vision.", "connector.")):
        return bool(call.pictures) and not call.past
    return not (call.past and name == "text.spliced")


def in_numbers(letters: str, known: dict[str, int]) -> tuple[int, ...]:
    """Put numbers for the letters of some axes."""
    return tuple(known[letter] if letter in known else int(letter) for letter in letters.split())


def sizes_by_tower(cfg: Config, call: Call) -> dict[str, dict[str, int]]:
    """The number that each letter stands for, in the rows of each tower."""
    vision, text = cfg.vision, cfg.text
    common = {"B": call.batch, "I": call.pictures, "T": call.length, "S": call.past + call.length}
    common |= {"R": vision.image_size, "P": vision.num_patches, "3RR/P": 3 * vision.patch_size**2}
    common |= {"C": vision.width, "D": text.width, "V": text.vocab_size}
    N, K, H = text.num_heads, text.num_kv_heads, text.head_dim
    heads = {"N": N, "K": K, "G": N // K, "H": H, "H/2": H // 2, "NH": N * H, "KH": K * H}
    return {
        "vision": common | {"N": vision.num_heads, "H": vision.head_dim, "F": vision.mlp_width},
        "text": common | heads | {"F": text.mlp_width},
    }
