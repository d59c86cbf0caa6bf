"""What is said before anything is judged: the two sides computed in other numbers, or were asked something else."""

from collections import Counter

import numpy as np

from npgemma.base.precision import round_bf16
from npgemma.judge.rerun import kept_as, stored_as

# Enough tensors, and elements of each, to tell their numbers by.
TENSORS, LOOKED_AT = 16, 4096
# Pictures that are farther apart than this, relatively, are not one picture resized by two programs.
ANOTHER_PICTURE = 0.1


def doubts(comparison):
    """Sentences on why two sides need not agree; none where they are of one question, in the same numbers."""
    found = [of_numbers(comparison), of_ids(comparison), of_picture(comparison)]
    return [sentence for sentence in found if sentence]


def of_numbers(comparison):
    """Whether their numbers are of another type than those that they are held against; empty if they are not."""
    theirs, recipe = numbers_of(comparison.port, comparison.recipe), comparison.recipe
    kept = kept_as(recipe)
    if theirs in (None, kept):
        return ""
    said = f"their numbers are {theirs}, these are {kept} ({recipe})"
    if theirs == "float16":  # no recipe has it
        return said
    wanted = {"bfloat16": "bf16-hf-eager"}.get(theirs, theirs)
    return f"{said}; hold them against {wanted}: --recipe {wanted} of npgemma pack, or --precision {wanted} of trace"


def numbers_of(port, recipe):
    """The type of number that most of a port's tensors hold, whatever they were stored in; None without floats."""
    floats = [name for name in port.names if port.table[name].kind == "float"]
    names = [name for name in floats if stored_as(name, recipe) == kept_as(recipe)]  # angles may stay float32
    some = names[:: max(1, len(names) // TENSORS)]
    found = Counter(type_of(port.source.read(port.names[name])) for name in some)
    return found.most_common(1)[0][0] if found else None


def type_of(array):
    """The least of the four types that holds the first numbers of an array."""
    if array.dtype == np.float16:
        return "float16"
    numbers = array.reshape(-1)[:LOOKED_AT]
    narrow = numbers.astype(np.float32)
    if not np.array_equal(narrow, numbers, equal_nan=True):
        return "float64"
    return "bfloat16" if np.array_equal(round_bf16(narrow), narrow, equal_nan=True) else "float32"


def of_ids(comparison):
    """Whether the prompts differ; empty if they do not, or nobody wrote down ids."""
    row = row_of(comparison, "ids")
    if row is None or row.status not in ("bad", "follows", "incomparable"):
        return ""
    how = row.message
    if row.worst:
        how = f"{row.worst['theirs']} at {row.worst['index']}, here {row.worst['want']}"
    return f"the prompts differ (ids: {how}): ask both the same, or hold the tokenizers against each other first"


def of_picture(comparison):
    """Whether the pictures differ by more than a resize, and by no fault that is known; empty if they do not."""
    row = row_of(comparison, "pixels")
    if row is None or row.causes or not row.entire.get("relative", 0.0) > ANOTHER_PICTURE:
        return ""
    return f"the pictures differ, by {row.entire['relative']:.0%}: is it the same picture, read in the same way?"


def row_of(comparison, name):
    """What was found of a tensor that they wrote down."""
    return next((row for row in comparison.rows if row.name == name and row.status != "missing"), None)
