"""The same model in another precision, without a second copy of its weights."""

from dataclasses import replace

from npgemma.base.errors import InputError
from npgemma.base.precision import PRECISIONS
from npgemma.paligemma import Model


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
    return replace(model, weights=replace(model.weights, precision=PRECISIONS[name]))
