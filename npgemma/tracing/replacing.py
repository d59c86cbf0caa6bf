"""Putting other tensors in place of computed ones: patching, ablating, going on from another runtime's tensors."""

from collections.abc import Iterable, Mapping

import numpy as np

from npgemma.base.describe import axes
from npgemma.base.errors import InputError
from npgemma.base.tensors import Tensor
from npgemma.files.reader import named
from npgemma.files.safetensors_file import open_safetensors
from npgemma.tracing import trace_file
from npgemma.tracing.selection import check_patterns


def replace_with(arrays: Mapping[str, np.ndarray]):
    """Give an observer that puts arrays in place of computed tensors, by name.

    Parameters
    ----------
    arrays : mapping of str to array
        ``{"text.blocks.3.attn.out": x}``; each of the shape and dtype of what it replaces.

    Returns
    -------
    observe : callable
        For ``npgemma.forward``, ``generate`` or ``trace``.
    """

    def observe(name, x):
        return arrays.get(name)

    return observe


def read_replacements(words: Iterable[str]) -> dict[str, np.ndarray]:
    """Read tensors from files, as a command line names them.

    Parameters
    ----------
    words : iterable of str
        ``text.blocks.3.attn.out=theirs.safetensors``: the file's tensor of that name, or its only one.

    Returns
    -------
    arrays : dict of str to array

    Raises
    ------
    InputError
        If a word has no ``=``, or the file no such tensor.
    CheckpointError
        If the file is damaged.
    """
    found: dict[str, np.ndarray] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not path:
            raise InputError(f"came as {word!r}; want NAME=FILE.safetensors", argument="replace")
        stored = trace_file.read_tensors(open_safetensors(named(path)))
        if name not in stored and len(stored) != 1:
            held = ", ".join(f"{each!r:.80}" for each in list(stored)[:4])
            raise InputError(
                f"{path} holds no tensor {name!r} among {len(stored)}; it begins with {held}",
                argument="replace",
            )
        found[name] = stored[name] if name in stored else next(iter(stored.values()))
    return found


def check_replacements(arrays: Mapping[str, np.ndarray], tensors: Mapping[str, Tensor], floating) -> None:
    """Refuse, before anything runs, what cannot stand in a tensor's place.

    Parameters
    ----------
    arrays : mapping of str to array
    tensors : mapping of str to Tensor
        All that the run will compute.
    floating : type
        Of the run's floats.

    Raises
    ------
    InputError
        If there is no such tensor, or one of another shape or dtype.
    """
    for name, array in arrays.items():
        check_patterns([name], tensors)
        if name not in tensors:
            raise InputError(f"{name!r} is a pattern; want the name of one tensor", argument="replace")
        wanted = tensors[name]
        if tuple(array.shape) != wanted.shape or array.dtype != wanted.dtype(floating):
            raise InputError(
                f"{name}: the replacement is {tuple(array.shape)} {array.dtype};"
                f" want {axes(wanted.shape, wanted.letters)} {wanted.dtype(floating)}"
            )
