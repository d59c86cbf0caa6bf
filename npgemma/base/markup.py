"""HTML for notebooks: small, every text escaped, nothing fetched from anywhere, no script and no style sheet."""

import html
from collections.abc import Iterable, Mapping, Sequence

from npgemma.base.describe import axes, bars, number, summarise
from npgemma.base.device import to_host
from npgemma.base.printer import visible

# Arrays that a table shows, and about how many values of each are looked at.
MOST, LOOKED_AT = 100, 1 << 16
# One for each label, in the order of appearance: far apart in hue, and all light enough for black letters.
COLOURS = ((255, 214, 0), (0, 229, 255), (255, 128, 171), (118, 255, 3), (255, 145, 0), (179, 157, 255))


def escape(text: object) -> str:
    """Make any text text: what a model or a user wrote is never markup."""
    return html.escape(visible(text))


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Write a table that scrolls when it is long; everything in it is text."""
    cell = '<td style="text-align:left;white-space:pre;font-family:monospace">'
    lines = ["".join(f"{cell}{escape(value)}</td>" for value in row) for row in rows]
    return (
        f'<div style="max-height:30em;overflow:auto"><p>{escape(title)}</p><table><thead><tr>'
        + "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in head)
        + "</tr></thead><tbody>"
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + f"</tbody></table>{f'<p>{escape(note)}</p>' if note else ''}</div>"
    )


def table_of_arrays(title: str, arrays: Mapping, letters: Mapping[str, str]) -> str:
    """Write a row an array: name, axes, dtype, range, mean, histogram, and whatever in it is no finite number.

    Parameters
    ----------
    title : str
    arrays : mapping of str to array
    letters : mapping of str to str
        The axes of those whose axes are known.
    """
    rows = []
    for name in list(arrays)[:MOST]:
        host = to_host(arrays[name])
        found = summarise(host, step=max(1, -(-host.size // LOOKED_AT)))
        span = f"{number(found.low, found)} to {number(found.high, found)}"
        odd = f"{found.nan} NaN, {found.inf} infinite" if found.nan or found.inf else ""
        shape = axes(found.shape, letters.get(name, ""))
        rows.append((name, shape, found.dtype, span, f"{found.mean:.3g}", f"{found.rms:.3g}", bars(found.counts), odd))
    more = len(arrays) - len(rows)
    head = ("name", "axes", "dtype", "range", "mean", "rms", "histogram", "")
    return table(title, head, rows, f"and {more} more" if more > 0 else "")
