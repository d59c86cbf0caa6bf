"""Which part of a large run is kept: some blocks, and of a fine grid of patches one square for several.

Letters: N heads, P patches, T positions of the prompt, S positions so far.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from npgemma.config import Config

# A picture is shown as at most so many squares a side.
SIDE = 16
# Attention of so many bytes, two a number, may lie in the page, for each tower.
ATTENTION_BYTES = 6_000_000


@dataclass(frozen=True)
class Thinning:
    """What is left of the positions of a run.

    Parameters
    ----------
    side : int
        Patches a side of the picture; 0 without one.
    step : int
        Patches a side of one square.
    image : (P)
        Positions of the prompt that are image tokens; none without a picture.
    length : int
        T.
    """

    side: int
    step: int
    image: np.ndarray
    length: int

    @property
    def squares(self) -> int:
        """Squares a side of the picture."""
        return -(-self.side // self.step)

    @property
    def patches(self) -> np.ndarray:
        """The first patch of each square."""
        numbers = np.arange(self.side**2).reshape(self.side, self.side)
        return numbers[:: self.step, :: self.step].reshape(-1)

    @cached_property
    def positions(self) -> np.ndarray:
        """The positions of the prompt that are kept: those of words, and of each square's first patch."""
        words = np.setdiff1d(np.arange(self.length), self.image)
        return np.sort(np.concatenate([words, self.image[self.patches]])).astype(int)

    def square_of(self) -> np.ndarray:
        """For each patch, the number of its square."""
        rows = np.arange(self.side) // self.step
        return (rows[:, None] * self.squares + rows[None, :]).reshape(-1)

    def thin(self, name: str, x: np.ndarray, letters: str) -> np.ndarray:
        """Keep a tensor's chosen positions; weights on the patches of a square are added up.

        A run whose picture has no more patches than squares is kept as it is.
        """
        if self.step == 1:
            return x
        axes, of_step = letters.split(), name.startswith("step.")
        for axis, letter in enumerate(axes):
            if letter == "P":
                summed = axis == len(axes) - 1 and name.endswith("probs")
                x = added(x, self.square_of()) if summed else np.take(x, self.patches, axis)
            elif letter == "T" and not of_step:
                x = np.take(x, self.positions, axis)
            elif letter == "S":
                later = np.arange(self.length, x.shape[axis])
                if name.endswith("probs"):
                    x = added(x, np.concatenate([self.kept_place(), len(self.positions) + np.arange(len(later))]))
                else:
                    x = np.take(x, np.concatenate([self.positions, later]), axis)
        return x

    def kept_place(self) -> np.ndarray:
        """For each position of the prompt, where it, or its square, stands among the kept ones."""
        leader = np.arange(self.length)
        leader[self.image] = self.image[self.patches[self.square_of()]]
        return np.searchsorted(self.positions, leader)

    def size(self, shape: tuple[int, ...], letters: str) -> int:
        """How many numbers are left of a tensor."""

        def left(letter: str, size: int) -> int:
            if letter == "P":
                return self.squares**2
            # A step has a T of its own, of one position.
            of_prompt = letter == "S" or letter == "T" and size == self.length
            return size - (self.length - len(self.positions)) if of_prompt else size

        return math.prod(left(letter, size) for letter, size in zip(letters.split(), shape, strict=True))


def added(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Add up the numbers of each group on the last axis: x (..., S), group (S) -> (..., groups)."""
    member = (group[:, None] == np.arange(group.max() + 1)).astype(x.dtype)
    return x @ member


def thinning(cfg: Config, ids: np.ndarray) -> Thinning:
    """Say what is kept of the positions of a prompt: ids (T)."""
    image = np.flatnonzero(ids == cfg.image_token_id)
    side = cfg.vision.image_size // cfg.vision.patch_size if len(image) else 0
    return Thinning(side, max(1, -(-side // SIDE)), image, len(ids))


def spread(depth: int, num_heads: int, positions: int) -> tuple[int, ...]:
    """Choose blocks evenly, the first and the last among them, as many as the page has room for."""
    room = ATTENTION_BYTES // (2 * num_heads * max(1, positions) ** 2)
    count = max(1, min(depth, room))
    return tuple(sorted({round(number) for number in np.linspace(0, depth - 1, count)})) if count > 1 else (0,)
