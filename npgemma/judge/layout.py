"""Other programs' names and axes: what a name means here, and how a tensor lies that is stored otherwise.

Neither is a fault; but it is said.
"""

import itertools
import math
import re
from functools import cache

import numpy as np

from npgemma.base.elsewhere import elsewhere, find, rows_of
from npgemma.judge import flax_names

# Letters that stand side by side in one axis elsewhere.
MERGES = (("N", "H"), ("K", "H"), ("K", "G"), ("I", "P"), ("B", "T"))


@cache
def tensor_names(cfg):
    """What other programs call each tensor: their names to ours, those that mean several in order of execution."""
    found = {}
    for ours in rows_of(cfg):
        other = elsewhere(ours, cfg)
        suffix = ".input" if other.which.startswith("input") else ""
        modules = [] if other.which.startswith("inside") else [f"{each}{suffix}" for each in other.modules.values()]
        for theirs in (*modules, other.big_vision, other.gguf, other.graph):
            if theirs and not theirs.startswith("(") and ours not in found.setdefault(theirs, []):
                found[theirs].append(ours)
    return found


def ours_of(theirs, cfg, names_map):
    """Our names that a port's name may mean; usually one, none if it is unknown."""
    if theirs in names_map:
        return [names_map[theirs]]
    if theirs in rows_of(cfg):
        return [theirs]
    if called := flax_names.ours_of(theirs, cfg):
        return [called]
    plain = re.sub(r"\.(output|weight)$", "", theirs)
    exact = tensor_names(cfg).get(plain)
    return exact if exact is not None else find(plain, cfg)


def known_names(theirs, cfg, names_map):
    """Our names for the port's: a dict of ours to theirs, and notes about names that mean several tensors or none."""
    found, notes, unknown = {}, [], []
    for each in theirs:
        meant = ours_of(each, cfg, names_map)
        if not meant:
            unknown.append(each)
        # llama.cpp calls a tensor and its rotated form alike, and a dump by name holds the later one.
        ours = meant[-1] if len(meant) <= 2 and meant else ""
        if len(meant) == 2:
            notes.append(f"{each!r} may mean {meant[0]} or {meant[1]}; taken for {ours} (--map says otherwise)")
        if len(meant) > 2:
            notes.append(
                f"{each!r} may mean {len(meant)} tensors, {meant[0]} to {meant[-1]}; left out (--map says which)"
            )
        if ours and ours not in found:
            found[ours] = each
    if unknown:
        listed = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        notes.append(f"{len(unknown)} names are unknown: {listed} (--map names.json says what they are)")
    return found, notes


def in_our_axes(name, array, tensor):
    """Lay a port's tensor as ours lies.

    Parameters
    ----------
    name : str
    array : (...)
    tensor : Tensor
        Our shape and letters.

    Returns
    -------
    array : (...)
        Of our shape, or as it came where no way is known.
    note : str
        What was done; empty if it lay so.
    """
    if name.startswith("mask.") and array.dtype.kind == "f" and array.size == math.prod(tensor.shape):
        return np.asarray(array == 0).reshape(tensor.shape), "an additive mask"
    if array.shape == tensor.shape:
        return array, ""
    for note, change in changes(name, tensor):
        changed = change(array)
        if changed is not None and changed.shape == tensor.shape:
            return changed, note
    return array, ""


def changes(name, tensor):
    """Ways in which tensors of that name are known to lie elsewhere, with the words for each."""
    letters, shape = tensor.letters.split(), tensor.shape
    yield "an axis of one added", lambda x: x.reshape(shape) if squeezed(x.shape) == squeezed(shape) else None
    for pair in MERGES:
        merged = merged_shape(letters, shape, pair)
        if merged:
            yield f"{pair[0]} and {pair[1]} in one axis", lambda x, merged=merged: (
                x.reshape(shape) if squeezed(x.shape) == squeezed(merged) else None
            )
    if name == "pixels":
        yield "channels first", lambda x: (
            np.moveaxis(x, -3, -1).reshape(shape) if x.ndim >= 3 and x.size == math.prod(shape) else None
        )
    if name == "vision.patches":
        yield "channels first, a grid", lambda x: as_grid(x, shape)
        yield "a grid", lambda x: x.reshape(shape) if x.ndim == 4 and x.shape[1] * x.shape[2] == shape[1] else None
    if name in ("text.cos", "text.sin"):
        yield "each value twice", lambda x: (
            x.reshape(*shape[:2], -1)[..., : shape[2]] if x.size == 2 * np.prod(shape) else None
        )
    if "H" in letters and "T" in letters or "H" in letters and "P" in letters:
        heads = [shape[0], shape[2], shape[1], shape[3]]
        yield "heads before positions", lambda x: (
            x.reshape(heads).swapaxes(1, 2) if squeezed(x.shape) == squeezed(heads) else None
        )


def squeezed(shape):
    """A shape without its ones."""
    return tuple(size for size in shape if size != 1)


def merged_shape(letters, shape, pair):
    """The shape with two neighbouring letters in one axis; nothing where they are no neighbours."""
    for first, second in itertools.pairwise(range(len(letters))):
        if (letters[first], letters[second]) == pair:
            return (*shape[:first], shape[first] * shape[second], *shape[second + 1 :])
    return ()


def as_grid(x, shape):
    """(I, C, side, side) as (I, P, C)."""
    I, P, C = shape
    return x.reshape(I, C, P).swapaxes(1, 2) if x.size == I * P * C and x.ndim in (3, 4) and C in x.shape[:2] else None
