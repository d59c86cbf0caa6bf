"""The same model in another precision, without a second copy of its weights."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from npgemma.base import half
from npgemma.base.errors import InputError
from npgemma.base.precision import PRECISIONS, Precision
from npgemma.paligemma import Model


class Recast(Mapping):
    """Weights that become arrays of a precision each time they are read.

    Parameters
    ----------
    arrays : mapping of str to array
    precision : Precision
        One that computes in float32; float64 is widened by :class:`npgemma.base.weights.Weights` itself.
    """

    def __init__(self, arrays: Mapping, precision: Precision) -> None:
        self.arrays = arrays
        self.precision = precision

    def __getitem__(self, name: str):
        array = self.arrays[name]
        # bfloat16 bits are right in every precision, and linear widens them block by block.
        if array.dtype == np.uint16:
            return array
        return self.precision.store(half.widen(array).astype(self.precision.dtype, copy=False))

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def in_precision(model: Model, name: str | None) -> Model:
    """Give the model that computes in another precision.

    Parameters
    ----------
    model : Model
    name : str or None
        Of :data:`npgemma.base.precision.PRECISIONS`; None leaves the model as it is.

    Raises
    ------
    InputError
        If there is no such precision.

    Notes
    -----
    Weights are rounded to bfloat16 for the bfloat16 recipes, as loading such a model in PyTorch does.  What was
    rounded stays rounded: a float64 run of a model in ``bf16-hf-eager`` is exact arithmetic over rounded weights.
    """
    if name is None or name == model.weights.precision.name:
        return model
    if name not in PRECISIONS:
        raise InputError(f"came as {name!r}; want one of {', '.join(PRECISIONS)}", argument="precision")
    precision = PRECISIONS[name]
    arrays = model.weights.arrays
    if precision.dtype is not np.float64:
        arrays = Recast(arrays, precision)
    return replace(model, weights=replace(model.weights, arrays=arrays, precision=precision))
