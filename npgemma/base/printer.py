"""The one printer: whatever reaches a terminal, as text that cannot steer it, in an encoding that it has.

``say`` writes an answer to standard output, ``say_json`` one for machines, ``tell`` a remark to standard error.
"""

import codecs
import contextlib
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

# Control characters but tab and newline, the lines and paragraphs of Unicode, what turns the direction of writing, and
# halves of surrogate pairs: with them a text could move the cursor, or pass for a line of ours.
# What a terminal without Unicode is shown instead, in ASCII; whatever else it has not becomes an escape.
LOOKALIKES = {
    **dict(zip("▁▂▃▄▅▆▇█░▒▓", "_.-:=+*#.:x", strict=True)),
    "…": "...", "×": "x", "−": "-", "→": "->", "“": '"', "”": '"', "–": "-", "·": ".", "�": "?",
}  # fmt: skip
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# What `say` can make of a text, by the numbers of ECMA-48 (select graphic rendition).
STYLES = {"bold": "1", "dim": "2", "green": "32", "cyan": "36"}


def lookalike(problem: UnicodeError) -> tuple[str, int]:
    """Write characters that an encoding has not by others that resemble them: an error handler of codecs."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    missing = problem.object[problem.start : problem.end]
    shown = "".join(LOOKALIKES.get(each, each) for each in missing)
    return shown.encode("ascii", "backslashreplace").decode(), problem.end


codecs.register_error("lookalike", lookalike)


def visible(text: object) -> str:
    r"""Give a text with whatever could steer a terminal written as an escape: ``\x1b``, ``\u202e``."""
    return STEERING.sub(lambda found: escape(found[0]), str(text))


def escape(character: str) -> str:
    """Write one character as Python and JSON know it."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def one_line(text: object) -> str:
    """Give a text as one line."""
    return visible(" ".join(str(text).split()))


def say(text: object = "", end: str = "\n", style: str = "") -> None:
    """Write to standard output, at once; in a style of :data:`STYLES` where the terminal has colours."""
    shown = visible(text)
    print(f"\x1b[{STYLES[style]}m{shown}\x1b[0m" if style and is_painted() else shown, end=end, flush=True)


def is_painted(choice: str = "auto") -> bool:
    """Tell whether standard output gets colours: ``always``, ``never``, or ``auto``, a terminal that wants them.

    Notes
    -----
    Whoever sets ``NO_COLOR``, to anything, wants none (no-color.org); a terminal called ``dumb``, or not at all, knows
    none.
    """
    if choice != "auto":
        return choice == "always"
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return wanted and sys.stdout is not None and sys.stdout.isatty()


def say_painted(lines: Iterable[tuple[str, object]], painted: bool) -> None:
    """Write lines to standard output, each behind the code of its colour, such as ``31;1``; the text cannot steer."""
    for code, line in lines:
        print(f"\x1b[{code}m{visible(line)}\x1b[0m" if painted and code else visible(line), flush=True)


def tell(text: object) -> None:
    """Say one line on standard error, as the command."""
    print(f"npgemma: {one_line(text)}", file=sys.stderr)


def show(text: object) -> None:
    """Write several lines to standard error: a table."""
    print(visible(text), file=sys.stderr)


def as_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON that cannot steer a terminal; NaN and infinities, which JSON has not, become null.

    >>> as_json({"text": "\\x1b[2J", "mean": float("nan")})
    '{"text": "\\\\u001b[2J", "mean": null}'
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say_json(value: Any, indent: int | None = None) -> None:
    """Write a value as JSON to standard output, in ASCII if its encoding has not all characters."""
    text = as_json(value, indent)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=indent)
    say(text)


def finite(value: Any) -> Any:
    """Give a value with None in the place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Make the standard streams safe for the time of a command.

    What their encoding has not becomes something that resembles it, or an escape; a warning of Pillow or NumPy becomes
    one line of ours; a stream that was closed before the start swallows what comes, and no other file gets its number.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="lookalike")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: tell(f"note: {message}")
        yield
