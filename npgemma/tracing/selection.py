"""Choosing tensors by name: shell patterns, and the nearest names of one that fits nothing."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence

from npgemma.base.errors import InputError, InputTypeError


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name fits one of the patterns; ``step.3.`` may be left out of a pattern.

    Parameters
    ----------
    name : str
        ``text.blocks.3.attn.probs``, ``step.0.text.logits``.
    patterns : sequence of str
        Shell patterns: ``text.*``, ``text.blocks.[0-3].out``.
    """
    plain = without_step(name)
    return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(plain, each) for each in patterns)


def without_step(name: str) -> str:
    """The name of a step's tensor as in the prefill."""
    return re.sub(r"^step\.\d+\.", "", name)


def as_patterns(only: str | Iterable[str]) -> tuple[str, ...]:
    """Take one pattern, several between commas, or an iterable of them."""
    listed = [only] if isinstance(only, str) else list(only) if isinstance(only, Iterable) else [only]
    if not all(isinstance(each, str) for each in listed):
        raise InputTypeError(
            f"came as {only!r:.80}; want a pattern such as 'text.blocks.*.out', or several",
            argument="patterns",
        )
    return tuple(part.strip() for each in listed for part in each.split(",") if part.strip())


def check_patterns(patterns: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a pattern that fits no name.

    Raises
    ------
    InputError
        With the nearest names.
    """
    names = list(known)
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            raise InputError(f"{pattern!r} fits none of {len(names)} tensors; {instead(pattern, names)}")


def instead(pattern: str, names: list[str]) -> str:
    """What to write where a pattern fits nothing: the blocks that there are, the nearest names, or where all stand."""
    block = re.match(r"(?:step\.\d+\.)?((?:vision|text)\.blocks)\.(\d+)\.", pattern)
    if block:
        numbers = {int(found[1]) for name in names if (found := re.search(rf"\b{block[1]}\.(\d+)\.", name))}
        if numbers and int(block[2]) not in numbers:
            return f"{block[1]} are {min(numbers)} to {max(numbers)}"
    close = nearest(pattern, names)
    return f"nearest: {', '.join(close)}" if close else "'npgemma names' lists them"


def nearest(pattern: str, names: Iterable[str], count: int = 4) -> list[str]:
    """The names that resemble a pattern most, blocks of one kind written once: ``text.blocks.*.attn.q``."""
    unnumbered = re.sub(r"\d+|\[[^]]*\]", "*", pattern)
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    return difflib.get_close_matches(unnumbered, kinds, n=count, cutoff=0.4)
