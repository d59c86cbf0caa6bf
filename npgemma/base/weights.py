"""The weights, as layers see them: a frozen prefix view over a flat dictionary.

``w["q.weight"]`` reads, ``w.at("attn")`` narrows, ``w.keep("scores", x)`` marks a tensor that PyTorch materialises too.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npgemma.base.errors import InputError, InputTypeError, WeightError
from npgemma.base.precision import PRECISIONS, Precision

# Weights that a notebook shows one by one: those of a block.
FEW = 24
# A small weight of every model.
EVERYWHERE = "text.norm.weight"


@dataclass(frozen=True, repr=False)
class Weights:
    """A view of the weights below one path, and what becomes of each tensor that a layer keeps.

    Parameters
    ----------
    arrays : mapping of str to array
        Full names to arrays, as :func:`npgemma.base.tensors.schema` lists them.  Matrices may be stored 16-bit
        (:mod:`npgemma.base.half`).
    precision : Precision
    observe : callable, optional
        ``observe(name, x)`` is shown each kept tensor in order of execution.  What it returns goes on instead of
        ``x``; None leaves ``x`` in place.
    path : str
        ``text.blocks.3.attn.`` with its last dot, or nothing for the whole model.
    """

    arrays: Mapping[str, Any]
    precision: Precision = PRECISIONS["float32"]
    observe: Callable[[str, Any], Any] | None = None
    path: str = ""

    def __getitem__(self, name):
        """Read the weight ``name`` below this path, in the precision's numbers; no second copy stays."""
        full_name = self.path + name
        if full_name not in self.arrays:
            near = difflib.get_close_matches(full_name, self.arrays, n=3, cutoff=0.5)
            raise WeightError(f"no weight {full_name!r} among {len(self.arrays)}; nearest: {', '.join(near) or 'none'}")
        return self.precision.weight(self.arrays[full_name])

    def __repr__(self):
        """A tree of the weights below this path: how many arrays, numbers and bytes, and their dtypes."""
        below = {name[len(self.path) :]: self.arrays[name] for name in self.arrays if name.startswith(self.path)}
        title = f"Weights {self.path.rstrip('.')}".rstrip()
        return "\n".join([f"{title}: {measured(below)}; computes in {self.precision.name}", *branches(below)])

    def _repr_html_(self):
        """For a notebook: a row a weight where they are few, as below ``w.at("text.blocks.0.attn")``; else the tree."""
        from npgemma.base import markup  # only here: nothing else in a run writes HTML

        below = {name: array for name, array in self.arrays.items() if name.startswith(self.path)}
        title, *tree = repr(self).splitlines()
        if len(below) <= FEW:
            return markup.table_of_arrays(title, {name[len(self.path) :]: below[name] for name in below}, {})
        return markup.table(title, ("weights", "what they are"), [line.split(": ", 1) for line in tree])

    def at(self, place):
        """Narrow the view: ``w.at("attn")["q.weight"]`` is ``w["attn.q.weight"]``."""
        return replace(self, path=f"{self.path}{place}.")

    def watched_by(self, observe):
        """Give the same weights, with each kept tensor shown to ``observe``."""
        if observe is not None and not callable(observe):
            raise InputTypeError(f"observe: came as {observe!r:.80}; want a function of a name and an array")
        return replace(self, observe=observe)

    def beside(self, values, dtype=None):
        """Give numbers as an array that lies where the weights do: on a card, if they do."""
        return np.asarray(values, dtype=dtype, like=self.arrays[EVERYWHERE])

    @property
    def inner(self):
        """The precision's rounding inside an equation."""
        return self.precision.inner

    def keep(self, name, x):
        """Name a tensor, round it to the storage precision, and show it to the observer.

        Parameters
        ----------
        name : str
            The tensor's short name; where a layer binds it, that of the local variable too.
        x : array
            Of the precision's dtype.

        Returns
        -------
        kept : array
            The rounded tensor, or what the observer put in its place.

        Raises
        ------
        InputError
            If ``x``, or a replacement, has another dtype or shape: a NumPy float64 scalar promotes float32 silently.
        """
        if x.dtype != self.precision.dtype:
            wanted = np.dtype(self.precision.dtype)
            raise InputError(f"{self.path}{name}: computed as {x.dtype}, the precision is {wanted}; use Python floats")
        return self.show(name, self.precision.store(x))

    def show(self, name, x):
        """Name a tensor that is not rounded (ids, positions, masks, angles) and show it to the observer, read-only."""
        if self.observe is None:
            return x
        replacement = self.observe(self.path + name, read_only(x))
        if replacement is None:
            return x
        if getattr(replacement, "shape", None) != x.shape or replacement.dtype != x.dtype:
            came = f"{getattr(replacement, 'shape', type(replacement).__name__)} {getattr(replacement, 'dtype', '')}"
            raise InputError(f"{self.path}{name}: the replacement is {came.strip()}; want {x.shape} {x.dtype}")
        return np.asarray(replacement, like=x)  # onto a card, where it came from the host


def read_only(x):
    """Give a view that cannot be written into: an observer changes a run by what it returns, and by nothing else.

    CuPy has no such views: whoever writes into an array of a card, writes into the run.
    """
    if not isinstance(x, np.ndarray):
        return x
    view = x.view()
    view.flags.writeable = False
    return view


def branches(arrays, levels=2, indent="  "):
    """Draw one line for each first part of the names, and its own parts below it; numbered parts are one line."""
    parts: dict[str, dict] = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(".")
        parts.setdefault(first, {})[rest] = array
    lines = []
    for first, below in parts.items():
        numbers = {name.partition(".")[0] for name in below}
        many = f" x {len(numbers)}" if all(number.isdigit() for number in numbers) else ""
        lines.append(f"{indent}{first}{many}: {measured(below)}")
        if levels > 1 and not many and all(below):
            lines += branches(below, levels - 1, indent + "  ")
    return lines


def measured(arrays):
    """Count arrays, numbers and bytes, and list the dtypes."""
    kinds = {"bfloat16" if array.dtype == np.uint16 else str(array.dtype) for array in arrays.values()}
    numbers, nbytes = (sum(getattr(array, what) for array in arrays.values()) for what in ("size", "nbytes"))
    count = f"{len(arrays)} array{'s' * (len(arrays) != 1)}"
    return f"{count}, {numbers:,} numbers, {nbytes / 1e6:,.2f} MB, {' and '.join(sorted(kinds))}"
