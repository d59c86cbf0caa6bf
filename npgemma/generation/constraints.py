"""Patterns that an answer must follow: a callable that is given the ids so far and gives the ids that may come next.

Any such callable may be passed as ``allowed``; the one here holds ``detect`` to what can be read back as boxes.
"""

from collections.abc import Collection, Sequence

import numpy as np

from npgemma.words.tokenizer import BYTE_PIECE, COMMANDS, Tokenizer
from npgemma.words.vocabulary import LOCATIONS, SPACE

SEPARATOR = " ; "
CORNERS = 4


class Detections:
    """Answers to ``detect``: ``<locYMIN><locXMIN><locYMAX><locXMAX> label``, several joined by `` ; ``, then the stop.

    The bottom is not above the top, nor the right left of the left; a label is any words without a semicolon; an answer
    may stop at once where nothing was found.  One that ``max_new_tokens`` cuts off may still end in the middle.

    Parameters
    ----------
    tokenizer : Tokenizer
    stop_ids : collection of int
        What ends an answer: the model's ``config.eos_ids``.
    """

    def __init__(self, tokenizer: Tokenizer, stop_ids: Collection[int]) -> None:
        self.stop_ids = np.array(sorted(stop_ids))
        self.locations = np.arange(tokenizer.loc(0), tokenizer.loc(len(LOCATIONS) - 1) + 1)
        pieces = {token: text_of(piece) for token, piece in enumerate(tokenizer.vocabulary.pieces)}
        self.texts = {token: text for token, text in pieces.items() if text and token not in tokenizer.special_ids}
        words = [token for token, text in self.texts.items() if not any(sign in text for sign in ";<\n")]
        self.words = np.array(words)
        self.inked = np.array([token for token in words if self.texts[token].strip()])
        self.with_semicolon = [token for token, text in self.texts.items() if text.count(";") == 1]
        self.space = np.array([tokenizer.id(SPACE)])

    def __call__(self, ids: Sequence[int]) -> np.ndarray:
        """Give the ids that may follow ``ids``, which follow the pattern themselves."""
        if not len(ids):
            return np.concatenate([self.locations, self.stop_ids])
        corners, label = self.last_object(ids)
        if len(corners) < CORNERS or label.endswith(SEPARATOR):
            # The third corner is held against the first, the fourth against the second.
            lowest = corners[-2] if len(corners) in (2, 3) else self.locations[0]
            return self.locations[self.locations >= lowest]
        if not label.strip():
            return self.inked if label else self.words
        if label.endswith(SEPARATOR[:-1]):
            return self.space
        ends = [token for token in self.with_semicolon if (label + self.texts[token]).endswith((" ;", SEPARATOR))]
        return np.concatenate([self.words, self.stop_ids, np.array(ends, dtype=np.int64)])

    def last_object(self, ids: Sequence[int]) -> tuple[list[int], str]:
        """Give the ids of the corners of the last object, and its label so far."""
        corners: list[int] = []
        label = ""
        for token in ids:
            if token in self.texts:
                label += self.texts[token]
            else:
                corners, label = [*(corners if len(corners) < CORNERS else []), token], ""
        return corners, label


def text_of(piece: str) -> str:
    """Give the text of a piece; none for commands, and for bytes that are no printable character by themselves."""
    if BYTE_PIECE.fullmatch(piece):
        character = chr(int(piece[3:5], 16))
        return character if character.isascii() and character.isprintable() else ""
    return "" if COMMANDS.fullmatch(piece) else piece.replace(SPACE, " ")
