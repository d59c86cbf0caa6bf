"""The one reader of what people hand in: a regular file of bounded size, and strict JSON in it.

Every file, and standard input, comes through :func:`read_file`, :func:`read_input` or :func:`open_regular`; every JSON
through :func:`parse_json`, which repairs nothing.  Each takes the class of error to raise, for only the caller knows
what a file was wanted for; and nothing but that error leaves them.
"""

import json
import math
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from npgemma.base.errors import InputError, NpgemmaError
from npgemma.files import sniff

JSON_LIMIT = 64 * 2**20  # bytes; a released index.json has 100 kB

# What is deeper or longer is no model's, and would overflow whoever walks or converts it: tokenizer_config.json of
# transformers has numbers of 31 digits ("no limit"), the header of a checkpoint is 3 objects deep.
DEPTH_LIMIT = 64
DIGITS_LIMIT = 300  # any such number is a finite float


def open_regular(path: Path, error: type[NpgemmaError]) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; gives its descriptor, which the caller closes, and what it is.

    Parameters
    ----------
    path : Path
    error : type of NpgemmaError
        What to raise.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for its other end for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        link = os.path.islink(path)
        raise error(f"{path}: {'is a link to nothing: the download did not finish' if link else MISSING}") from None
    except (OSError, ValueError) as problem:  # ValueError: a path that no file can have
        raise error(f"{path}: cannot be read: {why(problem)}") from None
    found = os.fstat(descriptor)
    # A pipe or a device would never end; only a regular file has a size to check.
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise error(f"{path}: is {kind}; want a regular file")
    return descriptor, found


MISSING = "no such file; check the path"


def named(path: Path | str) -> Path:
    """Give a path that a user names, if there is anything: a name of nothing is a wrong word, and no broken file.

    Raises
    ------
    InputError
    """
    if not is_there(path):
        raise InputError(f"{path}: {MISSING}")
    return Path(path)


def read_file(path: Path, limit: int, error: type[NpgemmaError]) -> bytes:
    """Read a whole regular file of at most ``limit`` bytes, or raise ``error`` saying why not."""
    descriptor, found = open_regular(path, error)
    with open(descriptor, "rb") as file:
        if found.st_size > limit:
            raise error(f"{path}: has {found.st_size:,} bytes, more than the {limit:,} that npgemma reads here")
        try:
            data = file.read(found.st_size + 1)
        except OSError as problem:
            raise error(f"{path}: cannot be read: {why(problem)}") from None
    if len(data) != found.st_size:
        raise error(f"{path}: changed while it was read ({found.st_size:,} bytes became others); try again")
    return data


def read_input(limit: int, error: type[NpgemmaError]) -> bytes:
    """Read all of standard input, at most ``limit`` bytes."""
    if sys.stdin is None:
        raise error("-: standard input is closed; give a file, or a pipe")
    data: bytes = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise error(f"-: standard input has more than the {limit:,} bytes that npgemma reads here; give a file")
    return data


def is_there(path: Path | str) -> bool:
    """Tell whether there is anything under a name, a broken link included: what cannot be read is not passed over."""
    return os.path.lexists(path)


def why(problem: Exception) -> str:
    """Say what is wrong, without the path that the message begins with."""
    return str(getattr(problem, "strerror", None) or problem)


# --- JSON ------------------------------------------------------------------------------------------------------------

WANTED: dict[type, str] = {dict: "an object {...}", list: "a list [...]"}


def read_json(path: Path, error: type[NpgemmaError], limit: int = JSON_LIMIT) -> dict[str, Any]:
    """Read a JSON file that must be one object."""
    found: dict[str, Any] = parse_json(read_file(path, limit, error), str(path), error)
    return found


def parse_json(data: bytes, place: str, error: type[NpgemmaError], kind: type = dict) -> Any:
    """Parse JSON strictly: UTF-8, no key twice, no NaN, nothing too deep or too long, no half characters.

    Parameters
    ----------
    data : bytes
    place : str
        What an error message begins with.
    error : type of NpgemmaError
        What to raise.
    kind : type
        What it must be: one object, unless another is asked for; ``object`` for anything.
    """

    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):  # Python's parser would keep the last one silently
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise error(f"{place}: the key {twice!r:.80} occurs twice; remove one")
        return found

    def finite(text):
        if len(text) > DIGITS_LIMIT or not math.isfinite(float(text)):
            raise error(f"{place}: has the number {text:.40}; want finite numbers of at most {DIGITS_LIMIT} digits")
        return float(text)

    def whole(text):
        return int(text) if len(text) < 20 or finite(text) else 0

    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_constant=finite, parse_float=finite, parse_int=whole
        )
    except error:
        raise  # from above; a ValueError too
    except UnicodeDecodeError as problem:
        raise error(f"{place}: byte {problem.start} is not UTF-8; {whole_kind(data)}") from None
    except json.JSONDecodeError as problem:
        raise error(f"{place}: not JSON at character {problem.pos}: {problem.msg}; {whole_kind(data)}") from None
    except RecursionError:
        raise error(f"{place}: JSON is nested too deeply; want at most {DEPTH_LIMIT} levels") from None
    if not isinstance(value, kind):
        raise error(f"{place}: holds a JSON {type(value).__name__}; want {WANTED.get(kind, kind.__name__)}")
    check_nesting(value, data, place, error)
    return value


def check_nesting(value: Any, data: bytes, place: str, error: type[NpgemmaError]) -> None:
    r"""Refuse what is nested deeper than the limit, and halves of surrogate pairs, which only ``\ud8..`` can write."""
    halves = b"\\ud" in data or b"\\uD" in data
    level: list[Any] = [[value]]  # in a list, so that a bare text is looked at too
    for _ in range(DEPTH_LIMIT + 1):
        if halves:
            for text in texts(level):
                if any("\ud800" <= character <= "\udfff" for character in text):
                    raise error(f"{place}: the text {text!r:.80} has half of a surrogate pair; want whole characters")
        children = (each.values() if isinstance(each, dict) else each for each in level)
        level = [child for some in children for child in some if isinstance(child, dict | list)]
        if not level:
            return
    raise error(f"{place}: JSON is nested too deeply; want at most {DEPTH_LIMIT} levels")


def texts(level: list[Any]) -> Iterator[str]:
    """The keys and texts that stand directly in some objects and lists."""
    for each in level:
        if isinstance(each, dict):
            yield from each
        for child in each.values() if isinstance(each, dict) else each:
            if isinstance(child, str):
                yield child


def whole_kind(data: bytes) -> str:
    """Say what broken JSON is instead, or what to do."""
    kind = sniff.describe(data[:1024])
    return f"it is {kind}" if kind else "put it right, or get it again"
