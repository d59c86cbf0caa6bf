"""One line an array: name, axes, dtype, size, range, mean, rms, a small histogram, what is zero, NaN or infinite.

``uint16`` arrays are taken for bfloat16 bits, as everywhere in npgemma.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma.base import half
from npgemma.base.device import to_host
from npgemma.base.errors import InputTypeError

BLOCKS = " ▁▂▃▄▅▆▇█"
BINS = 10
# Numbers looked at in one go: the temporaries of a 1 GB array stay in the cache.
CHUNK = 1 << 18
# A histogram is drawn of no more values than this.
SAMPLE = 1 << 16


@dataclass(frozen=True)
class Summary:
    """What one line says about an array.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
    nbytes : int
    low, high, mean, rms : float
        Of the finite values; NaN where there are none.
    zero, nan, inf : int
        How many values are so.
    counts : tuple of int
        Finite values in each of ten equal parts of [low, high], of at most 65,536 values at an even stride.
    first : tuple of float
        The first values in memory order of the axes.
    entropy : float or None
        Of rows that are probabilities, the mean in bits.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    low: float
    high: float
    mean: float
    rms: float
    zero: int
    nan: int
    inf: int
    counts: tuple[int, ...]
    first: tuple[float, ...]
    entropy: float | None = None


def describe(x: Any, name: str = "", letters: str = "", most: int | None = None) -> str:
    """Say in one line what an array holds.

    Parameters
    ----------
    x : array
    name : str, optional
        Its name in the tree; rows of ``...probs`` get their entropy too.
    letters : str, optional
        Its axes, ``"B T D"``.
    most : int, optional
        Look at no more values than about so many, at an even stride, and say so: for a hover, which must be quick.

    Returns
    -------
    line : str

    Raises
    ------
    InputTypeError
        If it holds no numbers.
    """
    host = to_host(x)
    if host.dtype.kind not in "biuf":
        raise InputTypeError(f"came as {type(x).__name__} of {host.dtype}; want an array of numbers", argument="x")
    step = 1 if most is None else max(1, -(-host.size // most))
    summary = summarise(host, is_attention=name.endswith("probs") and step == 1, step=step)
    sampled = "" if step == 1 else f"  (every {step}th value)"
    return line_of(summary, name, letters) + sampled


def summarise(x: np.ndarray, is_attention: bool = False, step: int = 1) -> Summary:
    """Count and measure an array, a piece at a time.

    Parameters
    ----------
    x : array
    is_attention : bool
        Rows of the last axis are probabilities: give their entropy.
    step : int
        Look at every so-manieth value only.
    """
    flat = x.reshape(-1)[::step]
    low, high, total, squares, zero, nan, inf = math.inf, -math.inf, 0.0, 0.0, 0, 0, 0
    for start in range(0, flat.size, CHUNK):
        piece = numbers(flat[start : start + CHUNK])
        finite = only_finite(piece)
        zero += piece.size - int(np.count_nonzero(piece))
        if finite.size < piece.size:
            nan += int(np.count_nonzero(np.isnan(piece)))
            inf += piece.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            with np.errstate(over="ignore"):
                total += float(finite.sum())
                squares += float(np.square(finite).sum())  # np.dot would wait for all threads of BLAS
    inf -= nan
    count = flat.size - nan - inf
    return Summary(
        shape=tuple(x.shape),
        dtype="bfloat16" if x.dtype == np.uint16 else str(x.dtype),
        nbytes=x.nbytes,
        low=low if count else math.nan,
        high=high if count else math.nan,
        mean=total / count if count else math.nan,
        rms=math.sqrt(squares / count) if count else math.nan,
        zero=zero,
        nan=nan,
        inf=inf,
        counts=histogram(flat, low, high) if count else (),
        first=tuple(float(value) for value in numbers(flat[:4])),
        entropy=mean_entropy(x) if is_attention else None,
    )


def numbers(piece: np.ndarray) -> np.ndarray:
    """Values as float64, so that sums are exact enough and nothing overflows."""
    with np.errstate(invalid="ignore"):  # a signalling NaN is counted, and no reason to warn
        return half.widen(piece).astype(np.float64)


def only_finite(piece: np.ndarray) -> np.ndarray:
    """Leave out NaN and infinity; a piece without them, the rule, is not copied."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(piece.sum())
    return piece if math.isfinite(total) else piece[np.isfinite(piece)]


def histogram(flat: np.ndarray, low: float, high: float) -> tuple[int, ...]:
    """Count the values in equal parts of [low, high]."""
    sample = numbers(flat[:: max(1, -(-flat.size // SAMPLE))])
    # Half-widths, since the width itself can overflow.
    edges = [low * (1 - part / BINS) + high * (part / BINS) for part in range(1, BINS)]
    places = np.searchsorted(edges, sample[np.isfinite(sample)], side="right")
    return tuple(int(count) for count in np.bincount(places, minlength=BINS))


def mean_entropy(probs: np.ndarray) -> float:
    """Mean over all rows of the entropy in bits: 0 looks at one key, log2(S) at all alike."""
    rows = probs.reshape(-1, probs.shape[-1])
    total = 0.0
    step = max(1, CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        piece = rows[start : start + step].astype(np.float64)
        total -= float(np.sum(piece * np.log2(np.where(piece > 0.0, piece, 1.0))))
    return total / max(1, len(rows))


def line_of(summary: Summary, name: str = "", letters: str = "") -> str:
    """Write a summary as one line."""
    parts = [
        name,
        axes(summary.shape, letters),
        summary.dtype,
        size_of(summary.nbytes),
        f"[{number(summary.low, summary)}, {number(summary.high, summary)}]",
        f"mean {summary.mean:.3g} rms {summary.rms:.3g}",
        f"|{bars(summary.counts)}|",
        f"zero {summary.zero} nan {summary.nan} inf {summary.inf}",
    ]
    if summary.entropy is not None:
        parts.append(f"entropy {summary.entropy:.2f} of {math.log2(max(1, summary.shape[-1])):.2f} bits")
    parts.append("first " + " ".join(number(value, summary) for value in summary.first))
    return "  ".join(part for part in parts if part)


def number(value: float, summary: Summary) -> str:
    """Write one value: integers whole, floats with four digits."""
    return f"{value:.0f}" if "int" in summary.dtype else f"{value:.4g}"


def axes(shape: Sequence[int], letters: str = "") -> str:
    """Write a shape, with a letter before each size where they are known: ``(B1 T264 D2048)``."""
    named = letters.split() if len(letters.split()) == len(shape) else [""] * len(shape)
    sizes = [str(size) if letter.isdigit() else joined(letter, size) for letter, size in zip(named, shape, strict=True)]
    return f"({' '.join(sizes)})"


def joined(letter: str, size: int) -> str:
    """``B1``, but ``H/2=36``, whose letter ends in a digit."""
    return f"{letter}={size}" if letter[-1:].isdigit() else f"{letter}{size}"


def size_of(nbytes: int) -> str:
    """Write bytes with a unit: ``2.2 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def number_of(things: Sequence[object] | int, what: str) -> str:
    """Write how many there are: ``1 tensor``, ``2 tensors``."""
    count = things if isinstance(things, int) else len(things)
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def bars(counts: Sequence[int]) -> str:
    """Draw counts as blocks; whatever is not nothing shows at least the lowest."""
    highest = max(counts, default=0)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // highest) if highest else 0] for count in counts)
