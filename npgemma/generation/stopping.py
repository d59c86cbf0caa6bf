"""Text of an answer as its tokens come, and where it ends.

A stop string may straddle tokens: what could be its beginning is held back until it is clear that it is not.
"""

from collections.abc import Sequence

from npgemma.words.tokenizer import TextStream, Tokenizer


class AnswerText:
    """The text of one answer, in whole characters, up to the first stop string.

    Parameters
    ----------
    tokenizer : Tokenizer or None
        Without one, the text stays empty.
    stop : sequence of str
    """

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str] = ()) -> None:
        self.stream = None if tokenizer is None else TextStream(tokenizer)
        self.stop = tuple(stop)
        self.text = ""
        self.held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take the next id; give the text that is certain with it."""
        return "" if self.stream is None or self.stopped else self.release(self.stream.push(token))

    def finish(self) -> str:
        """Give what was held back, when no more ids come."""
        if self.stream is None or self.stopped:
            return ""
        piece = self.release(self.stream.finish())
        rest, self.held = ("" if self.stopped else self.held), ""
        self.text += rest
        return piece + rest

    def release(self, more: str) -> str:
        """Add ``more`` to what is held, and give what can be no part of a stop string."""
        self.held += more
        found = [self.held.index(text) for text in self.stop if text in self.held]
        self.stopped = bool(found)
        certain = min(found) if found else len(self.held) - overlap(self.held, self.stop)
        piece, self.held = self.held[:certain], self.held[certain:]
        self.text += piece
        return piece


def overlap(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that begins a stop string.

    >>> overlap("a cat ;", [" ; dog"])
    2
    """
    longest = max((len(each) for each in stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(each.startswith(text[-length:]) for each in stop):
            return length
    return 0
