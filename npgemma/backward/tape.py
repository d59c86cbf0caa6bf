"""The tape: the tensors of a run and the weights, as mirrored layers read them, and where gradients go.

``t["scores"]`` reads a tensor of the run, ``t["q.weight"]`` a weight, ``t.at("attn")`` narrows, ``t.keep("scores", d)``
names the gradient of a tensor, ``t.add("q.weight", d)`` hands over one use of a weight.  A trace is a tape: nothing in
the forward pass knows of this file.
"""

import difflib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npgemma import text, vision
from npgemma.base.errors import InputError, TensorError
from npgemma.base.products import Known
from npgemma.base.weights import Weights, read_only
from npgemma.config import Config

# What the mirrored layers read besides the tensors of blocks; `pixels` is of interest for its gradient only.
BLOCK = ".blocks."
# Of a block of the decoder, products no wider than its rows: a fifteenth of its tensors, and four tenths of its work.
NARROW = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.out")


@dataclass(frozen=True, repr=False)
class Tape:
    """A view of a run below one path, and what becomes of each gradient.

    Parameters
    ----------
    tensors : mapping of str to array
        A dictionary that an observer filled, or :class:`Rerun`.
    weights : Weights
        Of the whole model, as the run read them.
    sums : Sums, or what has its ``wants`` and ``add``
        Takes the gradients of weights.
    observe : callable, optional
        ``observe(name, d)`` is shown the gradient of each named tensor, in the trace's order reversed.  What it
        returns goes on instead of ``d``.
    path : str
        ``text.blocks.3.attn.``, or nothing for the whole model.
    """

    tensors: Mapping[str, Any]
    weights: Weights
    sums: Any
    observe: Callable[[str, Any], Any] | None = None
    path: str = ""

    def __getitem__(self, name):
        """Read a tensor of the run, or a weight, below this path."""
        full_name = self.path + name
        if full_name.endswith((".weight", ".bias")):
            return self.weights[full_name]
        try:
            return self.tensors[full_name]
        except KeyError:
            near = ", ".join(difflib.get_close_matches(full_name, self.tensors, n=3, cutoff=0.5)) or "none"
            raise TensorError(f"the tape lacks {full_name!r}, which going backwards needs; it has {near}") from None

    def at(self, place):
        """Narrow the view: ``t.at("attn")["q"]`` is ``t["attn.q"]``."""
        return replace(self, path=f"{self.path}{place}.")

    def keep(self, name, d_x):
        """Name the gradient of a tensor, and show it to the observer.

        Returns
        -------
        kept : array
            The gradient, or what the observer put in its place.

        Raises
        ------
        InputError
            If a gradient's, or a replacement's, shape or dtype is not the tensor's: a broadcast gradient is wrong.
        """
        x = self[name]
        replacement = None if self.observe is None else self.observe(self.path + name, read_only(d_x))
        kept = d_x if replacement is None else replacement
        if kept.shape != x.shape or kept.dtype != x.dtype:
            came = f"the gradient is {kept.shape} {kept.dtype}"
            raise InputError(f"{self.path}{name}: {came}, the tensor {x.shape} {x.dtype}; want the same")
        return np.asarray(kept, like=x)

    def add(self, name, d_weight):
        """Hand over what one use of a weight had to do with the loss; a weight may have several uses."""
        full_name = self.path + name
        if self.sums.wants(full_name):
            self.sums.add(full_name, d_weight)

    def wants_below(self, place):
        """Tell whether anybody wants the gradient of a weight below ``place``."""
        return any(self.sums.wants(name) for name in self.weights.arrays if name.startswith(self.path + place))


class Sums(dict):
    """Gradients of weights by name, each the sum of all its uses, of all batches that were handed to it.

    Parameters
    ----------
    wanted : iterable of str
        Full names; gradients of other weights are not computed.
    """

    def __init__(self, wanted):
        super().__init__()
        self.wanted = frozenset(wanted)

    def wants(self, name):
        """Tell whether the gradient of a weight is asked for."""
        return name in self.wanted

    def add(self, name, d_weight):
        """Add one use, multiplied out only now."""
        whole = d_weight.whole() if hasattr(d_weight, "whole") else d_weight
        if name in self:
            self[name] += whole
        else:
            self[name] = whole.copy() if whole is d_weight else whole


@dataclass(frozen=True)
class Product:
    """The gradient of a matrix by one use, ``left^T @ right``, not yet multiplied.

    Nobody may want it, and low-rank factors want only its products with thin matrices.

    Parameters
    ----------
    left : (T, F)
        Gradient of the product's rows.
    right : (T, D)
        What was multiplied.
    """

    left: Any
    right: Any

    def whole(self):
        """Give the whole matrix, (F, D)."""
        return self.left.T @ self.right


@dataclass(frozen=True)
class Rows:
    """The gradient of a table by looking up some of its rows, not yet added up.

    Parameters
    ----------
    ids : (T)
    d_rows : (T, D)
    size : int
        V, rows of the table.
    """

    ids: Any
    d_rows: Any
    size: int

    def whole(self):
        """Give the whole table's gradient, (V, D): equal ids side by side, then one sum for each."""
        order = np.argsort(self.ids, kind="stable")
        different, starts = np.unique(self.ids[order], return_index=True)
        table = np.zeros((self.size, self.d_rows.shape[1]), dtype=self.d_rows.dtype, like=self.d_rows)
        table[different] = np.add.reduceat(self.d_rows[order], starts, axis=0)
        return table


class Rerun(Mapping):
    """A tape that remembers each block's output and what lies outside blocks, and runs a block again when asked.

    Of the decoder's blocks it remembers narrow products too, which are not multiplied again.

    Parameters
    ----------
    weights : Weights
    cfg : Config
    """

    def __init__(self, weights: Weights, cfg: Config) -> None:
        self.weights, self.cfg = weights, cfg
        self.kept: dict[str, Any] = {}
        self.place, self.inside = "", dict[str, Any]()

    def observe(self, name: str, x: Any) -> None:
        """Record a tensor of the run, as an observer, if it is one of those that are remembered."""
        _, _, inside = name.partition(BLOCK)
        short = inside.partition(".")[2]
        if not inside or short == "out" or (name.startswith("text.") and short in NARROW):
            self.kept[name] = x

    def __getitem__(self, name: str) -> Any:
        if name not in self.kept and BLOCK in name:
            place = ".".join(name.split(".")[:3])
            if place != self.place:
                self.inside = self.run_again(place)
                self.place = place
            return self.inside[name]
        return self.kept[name]

    def run_again(self, place: str) -> dict[str, Any]:
        """Run one block on its recorded input, and give its tensors."""
        tower, _, number = place.split(".")
        first = {"vision": "vision.embedded", "text": "text.spliced"}[tower]
        x = self.kept[f"{tower}.blocks.{int(number) - 1}.out" if int(number) else first]
        inside: dict[str, Any] = {}
        known = {f"{place}.{short}.weight": Known(rows_of(self.kept[f"{place}.{short}"]))
                 for short in NARROW if f"{place}.{short}" in self.kept}
        others: Any = self.weights.arrays
        w = replace(self.weights, arrays=ChainMap(known, others), observe=inside.__setitem__).at(place)
        if tower == "vision":
            vision.block(x, w, self.cfg.vision)
        else:
            slides = self.cfg.text.layer_windows[int(number)] is not None
            mask = self.kept["mask.sliding" if slides else "mask.full"]
            text.block(x, w, self.cfg.text, mask, self.kept["text.cos"], self.kept["text.sin"])
        return inside

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def rows_of(x):
    """A product's rows: (B, T, F) or (B, T, N, H) -> (B T, F)."""
    return x.reshape(x.shape[0] * x.shape[1], -1)
