"""Loading a model: a folder becomes one frozen record."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npgemma.base.adapted import Adapted
from npgemma.base.device import open_card
from npgemma.base.errors import InputError
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights, read_only
from npgemma.checkpoints import checkpoint, hf_config, hub_cache
from npgemma.checkpoints.adapter import read_adapter
from npgemma.files import image_settings
from npgemma.paligemma import Model
from npgemma.words import tokenizer

DTYPES = ("float32", "float64", "bfloat16")

# The model in the box, installed with the package.
TINY = Path(__file__).parent.parent / "tiny"


def load(
    folder: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    precision: str | None = None,
    progress: Callable[[int, int], Any] | None = None,
    allow_nonfinite: bool = False,
    adapter: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> Model:
    """Load a PaliGemma from a Hugging Face folder.

    Parameters
    ----------
    folder : str or path, optional
        A folder with ``config.json`` and safetensors files, or a hub id whose snapshot is in the local Hugging Face
        cache.  Left out, it is the small model in the box.  Nothing is ever downloaded.
    dtype : {"float32", "bfloat16", "float64"}
        How weights lie in memory and what is computed in: float32 widened once; bfloat16 as stored, memory-mapped,
        with arithmetic in float32; float64 widened matrix by matrix, exact arithmetic.
    precision : str, optional
        A recipe of :data:`npgemma.base.precision.PRECISIONS` to emulate instead: where results are rounded to bfloat16.
    progress : callable, optional
        ``progress(bytes done, bytes in all)`` while weights are widened.
    allow_nonfinite : bool
        Accept NaN and infinity among the weights.
    adapter : path, optional
        A folder with a LoRA adapter in peft's format.  It is merged: each matrix that it adapts is then a float one in
        memory.
    device : str
        ``cpu``; or ``cuda``, ``cuda:1``, …: the weights go to that graphics card, through CuPy, and all that is
        computed with them is computed there.  It becomes the card of the calling thread.

    Returns
    -------
    model : Model
        ``tokenizer`` is None where the folder has none.

    Raises
    ------
    InputError
        For an unknown dtype, precision or device, and a card that cannot be reached.
    NpgemmaError
        For whatever is wrong in the folder.

    Warns
    -----
    SlowWarning
        If the matrices used from the file do not fit into the memory that is left.

    Notes
    -----
    Products of many rows run on BLAS's threads, which hinder one another where the machine has other work.  The command
    does without them; a program does as well if it sets ``OPENBLAS_NUM_THREADS=1`` and ``NPGEMMA_NUM_THREADS`` to the
    number of processors before NumPy is imported, or, where NumPy is there already and threadpoolctl installed, sets
    both and calls ``threadpoolctl.threadpool_limits(1, "blas")`` before its first product.
    """
    if dtype not in DTYPES:
        raise InputError(f"came as {dtype!r}; want one of {', '.join(DTYPES)}", argument="dtype")
    name = precision or ("float64" if dtype == "float64" else "float32")
    if name not in PRECISIONS:
        raise InputError(f"came as {name!r}; want one of {', '.join(PRECISIONS)}", argument="precision")
    card = open_card(device)
    place = TINY if folder is None else hub_cache.find_model(folder)
    config = hf_config.read_config(place)
    arrays = checkpoint.load_weights(
        place, config, dtype=dtype, precision=PRECISIONS[name], progress=progress, allow_nonfinite=allow_nonfinite,
        card=card,
    )
    if adapter is not None:
        merge_adapter(adapter, config, arrays, PRECISIONS[name])
    return Model(
        config=config,
        weights=Weights(arrays, PRECISIONS[name]),
        tokenizer=tokenizer.load_tokenizer(place, config) if tokenizer.has_tokenizer(place) else None,
        image_settings=image_settings.read_settings(place),
        name=str(folder or "the model in the box"),
    )


def merge_adapter(folder, config, arrays, precision):
    """Put the adapted matrices in the place of their bases."""
    if precision.name not in ("float32", "float64"):
        raise InputError(f"cannot be merged in {precision.name}; want float32 or float64", argument="adapter")
    factors, scale = read_adapter(folder, config, arrays)
    beside = Weights(arrays).beside
    factors = {name: beside(factor, precision.dtype) for name, factor in factors.items()}
    adapted = Adapted(arrays, factors, scale)
    for name in {factor.rpartition("/")[0] for factor in factors}:
        arrays[name] = read_only(adapted[name])
