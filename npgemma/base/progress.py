"""How far long work is, and how long it will take: a line on a terminal's stderr, elsewhere nothing unless asked."""

import os
import sys
import time

from npgemma.base import printer

# Seconds between two drawings, which more often only cost time; between two lines, where lines were asked for; and
# before a guess of what is left is worth a word.
PAUSE, LINE_PAUSE, GUESS_AFTER = 0.1, 5.0, 0.5

# Whether lines were asked for: of the command's --progress.
asked = {"lines": False}


def say_lines(yes: bool) -> None:
    """Say lines where stderr is no terminal, or say nothing there."""
    asked["lines"] = yes


class Progress:
    """A line that is redrawn in place, and wiped when the work is done.

    Parameters
    ----------
    label : str
        What is going on: ``loading the model``.
    """

    def __init__(self, label: str) -> None:
        # A dumb terminal cannot go back to the beginning of a line.
        self.shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.drawn = 0.0
        self.width = 0
        self.begin(label)

    def begin(self, label: str) -> None:
        """Go on to other work, whose time is counted from now."""
        self.label = label
        self.began = self.told = time.monotonic()

    def __call__(self, done: float, total: float) -> None:
        """Show that ``done`` of ``total`` is ready."""
        now = time.monotonic()
        if self.shown and now - self.drawn > PAUSE:
            self.draw(self.line(done, total, now))
        elif asked["lines"] and not self.shown and now - self.told > LINE_PAUSE:
            self.told = now
            printer.tell(self.line(done, total, now))

    def line(self, done: float, total: float, now: float) -> str:
        """Say how far it is and, once that can be guessed, how long it will take."""
        text, spent = f"{self.label}: {100 * done / max(total, 1):.0f} %", now - self.began
        if not 0 < done < total or spent < GUESS_AFTER:
            return text
        return f"{text}, {duration(spent * (total - done) / done)} left"

    def draw(self, line: str) -> None:
        """Draw the line over what it was."""
        self.drawn = time.monotonic()
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)

    def wipe(self) -> None:
        """Leave the terminal as it was."""
        if self.width:
            self.draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def __enter__(self) -> "Progress":
        if self.shown:
            self.draw(f"{self.label} …")
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()


def duration(seconds: float) -> str:
    """Write a time that need not be exact: ``8 s``, ``3 min``, ``2 h 10 min``.

    >>> duration(7.4), duration(200), duration(7800)
    ('7 s', '3 min', '2 h 10 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
