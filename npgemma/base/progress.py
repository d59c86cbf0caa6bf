"""One line on a terminal's stderr that says how far long work is; elsewhere nothing."""

import sys
import time

# Seconds between two drawings: more often only costs time.
PAUSE = 0.1


class Progress:
    """A line that is redrawn in place, and wiped when the work is done.

    Parameters
    ----------
    label : str
        What is going on: ``loading the model``.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.shown = sys.stderr.isatty()
        self.drawn = 0.0
        self.width = 0

    def __call__(self, done: float, total: float) -> None:
        """Show that ``done`` of ``total`` is ready."""
        if self.shown and time.monotonic() - self.drawn > PAUSE:
            self.draw(f"{self.label}: {100 * done / max(total, 1):.0f} %")

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
