"""What may be wrong with any tensor, whatever makes it: how it was stored, turned, scaled, or mistaken for another."""

import math

import numpy as np

from npgemma.judge.rerun import bounds, kept_as
from npgemma.judge.rounding import stored, to_odd_float32

ROW_LETTERS = ("T", "P")
LEVEL = 1.01 / 127.5


def symptoms(rerun, name, right, theirs, real):
    """Give (name, sentence) of each that fits.

    Parameters
    ----------
    rerun : Rerun
    name : str
    right : Near
    theirs : (...)
    real : (...)
    """
    low, high = bounds(name, right, rerun.recipe)
    if unrounded(rerun, low, high, theirs, real):
        return [("store-unrounded", "these are right but for the store: rounded to bfloat16 they would pass")]
    if name == "pixels" and np.all((np.abs(theirs - right.value) <= LEVEL)[real]):
        return [("pixels-within-a-level", "each pixel is within a level of 255 of ours: another program's same resize")]
    found = [
        symptom
        for symptom in (truncated(rerun, right, theirs, real), scaled(right, theirs, low, high, real))
        if symptom
    ]
    letters = rerun.table[name].letters.split()
    for symptom, sentence, moved in moves(letters, theirs.shape):
        ours = [moved(bound) for bound in (low, high)]
        if ours[0].shape == theirs.shape and np.all(((theirs >= ours[0]) & (theirs <= ours[1]))[real]):
            found.append((symptom, sentence))
            break
    return found or confused(rerun, name, theirs, real)


def unrounded(rerun, low, high, theirs, real):
    """Whether wider numbers than bfloat16 were written down, which are right once they are rounded to it."""
    if kept_as(rerun.recipe) != "bfloat16":
        return False
    rounded = stored(np.asarray(theirs), "bfloat16")
    return bool(np.all(((rounded >= low) & (rounded <= high))[real]))


def truncated(rerun, right, theirs, real):
    """bfloat16 whose lower bits were cut off."""
    if kept_as(rerun.recipe) != "bfloat16":
        return None
    # What entered the store is no longer known; cutting gives the stored value or the one before it, towards zero.
    value = np.abs(right.value)
    step = value - cut(np.nextafter(value, 0.0))
    below = (np.abs(theirs) >= value - step) & (np.abs(theirs) <= value) & (np.sign(theirs) == np.sign(right.value))
    share = float(np.mean((np.abs(theirs) < value)[real])) if real.any() else 0.0
    if np.all((below | (value == 0.0))[real]) and 0.2 < share < 0.8:
        return "store-truncates", "results are cut off to bfloat16; they are to be rounded to nearest, ties to even"
    return None


def cut(x):
    """Cut float64 to bfloat16, towards zero."""
    bits = np.ascontiguousarray(to_odd_float32(x)).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def scaled(right, theirs, low, high, real):
    """All numbers multiplied by one: found by least squares."""
    x, y = right.value[real], np.asarray(theirs, dtype=np.float64)[real]
    size = float(np.dot(x, x))
    if not size or not np.all(np.isfinite(y)):
        return None
    slope = float(np.dot(x, y)) / size
    # A power of two keeps bits; any other slope is known to a few of them only, and results were rounded once more.
    slack = np.maximum(np.abs(high - low)[real], 2.0**-7 * np.abs(x)) * abs(slope)
    if slope and abs(slope - 1.0) > 0.02 and np.all(np.abs(y - slope * x) <= slack + 1e-30):
        return "scaled", f"all numbers are {slope:.6g} times what they should be{in_words(slope)}"
    return None


def in_words(slope):
    """What a factor may be, if it is a known one."""
    inverse = 1.0 / slope
    for factor, words in ((slope, "{} "), (inverse, "1/{} ")):
        if abs(factor - round(factor)) < 1e-3 * abs(factor) and 1 < abs(factor) < 4096:
            return f": {words.format(round(factor)).strip()}"
        square = factor * factor
        if abs(square - round(square)) < 4e-3 * abs(square) and 1 < square < 16384:
            root = f"sqrt({round(square)})"
            return f": {words.format(root).strip()}"
    return ""


def moves(letters, shape):
    """(name, sentence, function) of each way in which numbers may have been moved about."""
    for axis, letter in enumerate(letters):
        if letter in ROW_LETTERS:
            yield "one-late", f"every {letter} is one place too far on", lambda x, a=axis: np.roll(x, 1, axis=a)
            yield "one-early", f"every {letter} is one place too far back", lambda x, a=axis: np.roll(x, -1, axis=a)
            yield "reversed", f"the {letter} run backwards", lambda x, a=axis: np.flip(x, axis=a)
        if letter in ("B", "I") and shape[axis] > 1:
            yield "rows-exchanged", f"the rows of {letter} stand in another order", lambda x, a=axis: np.flip(x, axis=a)
    if shape[-1] == shape[-2] and shape[-1] > 1:
        yield "transposed", "the last two axes are exchanged", lambda x: np.swapaxes(x, -1, -2)
    yield (
        "read-transposed",
        "numbers lie transposed in memory: the last two axes were read in the other order",
        lambda x: (np.swapaxes(x, -1, -2).reshape(x.shape)),
    )
    if len(shape) > 2:
        yield (
            "read-transposed-before",
            "the two axes before the last were read in the other order",
            lambda x: (np.swapaxes(x, -2, -3).reshape(x.shape)),
        )
    if shape[-1] % 2 == 0:
        yield (
            "halves-exchanged",
            "the halves of the last axis are exchanged",
            lambda x: np.roll(x, x.shape[-1] // 2, axis=-1),
        )
        yield (
            "pairs-sorted",
            "even channels come first, then odd ones: another layout of the rotation",
            lambda x: (np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)),
        )
        yield (
            "pairs-interleaved",
            "the two halves are dealt out in turn: another layout of the rotation",
            lambda x: (np.stack(np.split(x, 2, axis=-1), axis=-1).reshape(x.shape)),
        )
    yield "channels-reversed", "the last axis runs backwards", lambda x: x[..., ::-1]


def confused(rerun, name, theirs, real):
    """Another tensor of the same block, written down under this name."""
    place = name.rpartition(".")[0]
    if not np.any(theirs[real]):
        return [("all-zero", "every number is zero: nothing was written, or nothing computed")]
    for other, tensor in rerun.table.items():
        near_by = other.startswith(place) and other != name and tensor.shape == theirs.shape
        if near_by and other in rerun.theirs and np.array_equal(np.asarray(rerun.theirs[other])[real], theirs[real]):
            return [
                ("another-tensor", f"these are the numbers of {other}: one of the two was written under a wrong name")
            ]
    return []


def given_wrongly(name, theirs, want, real):
    """(name, sentence) of what is wrong with ids, types or positions, integers (B, T); nothing where it is unknown."""
    gap, wrong = (theirs - want)[real], (theirs != want) & real
    if name == "positions" and np.ptp(gap) == 0:
        begin = want[real].min()
        return [("positions-moved", f"every position is {abs(gap[0])} too {'large' if gap[0] > 0 else 'small'}; they "
                                    f"begin at {begin + gap[0]}, here at {begin}")]  # fmt: skip
    for by, word in ((1, "far on"), (-1, "early")):
        if np.array_equal(np.roll(want, by, axis=1), theirs):
            return [("given-rolled", f"every one stands {abs(by)} place too {word}")]
    if len({*theirs[wrong]}) == len({*want[wrong]}) == 1:
        right = want[wrong][0]
        return [("given-exchanged", f"{theirs[wrong][0]} stands at {wrong.sum()} places where {right} belongs")]
    return []


def signal_to_noise(relative):
    """Decibels of a relative error."""
    return math.inf if relative == 0 else -20.0 * math.log10(relative)
