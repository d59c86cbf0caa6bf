"""Reading a mask codec: ``vae-oid.npz`` as it was released, or the same names in a ``.safetensors`` file.

Not supported: pickled files, codecs of another depth or kernel size, more or fewer words than 128.
"""

import os
from pathlib import Path

import numpy as np

from npgemma.base import half
from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.checkpoints.hub_cache import find_model
from npgemma.checkpoints.loading import TINY
from npgemma.files.arrays import archive_readers
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there
from npgemma.files.safetensors_file import open_safetensors
from npgemma.places.codec import HALVINGS, NUM_BLOCKS, NUM_WORDS

SUFFIXES = (".npz", ".safetensors")
NAMES = ("codec.safetensors", "vae-oid.npz")  # looked for in a model's folder, in this order
EMBEDDING = "_vq_vae._embedding"
# Running averages that training leaves behind; nothing reads them.
AVERAGES = {"_vq_vae._ema_cluster_size": (NUM_WORDS,), "_vq_vae._ema_w": (NUM_WORDS, "E")}
# What the letters of the layout are in the released file.
RELEASED = {"E": 512, "e0": 1, "e1": 16, "e2": 32, "e3": 64, "e4": 128, "d0": 128, "d1": 128, "d2": 64, "d3": 32}
RELEASED |= {"d4": 16} | {f"{side}.{n}.{part}": 128 for side in "ed" for n in (0, 1) for part in ("near", "far")}


def load_codec(place: str | os.PathLike[str] | None = None, dtype: str = "float32") -> Weights:
    """Load a mask codec.

    Parameters
    ----------
    place : str or path, optional
        A file ``….npz`` or ``….safetensors``; or a model, as :func:`npgemma.load` takes it, whose folder holds
        ``codec.safetensors`` or ``vae-oid.npz``.  Left out, it is the model in the box.
    dtype : {"float32", "float64"}
        What is computed in.

    Returns
    -------
    codec : Weights
        For :func:`npgemma.locate`, :func:`npgemma.encode_mask`, and the functions of :mod:`npgemma.places.codec`.

    Raises
    ------
    CheckpointError
        If the file is broken or no codec.
    InputError
        If there is none, saying where to put one.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"came as {dtype!r}; want float32 or float64", argument="dtype")
    path = find_codec(place)
    if path is None:
        raise InputError(f"{place or 'the model in the box'}: has no mask codec; {where_to_put_one()}")
    return read_codec(path, dtype)


def find_codec(place=None):
    """Give the path of a model's codec, of a file itself, or None where a model has none."""
    if place is not None and Path(place).suffix in SUFFIXES:
        return Path(place)
    folder = TINY if place is None else find_model(place)
    found = [model_file(folder, name, CheckpointError) for name in NAMES]
    return next((path for path in found if is_there(path)), None)


def where_to_put_one():
    """Say how a model gets a codec; released PaliGemmas share one."""
    return f"put {NAMES[1]} (big_vision's, for every released PaliGemma) into its folder, or name it with --codec FILE"


def read_codec(path, dtype="float32"):
    """Read a codec from a file, by its suffix."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: is no mask codec by its name; want one that ends in {' or '.join(SUFFIXES)}")
    released = path.suffix == ".npz"
    stored = read_npz(path) if released else read_safetensors(path)
    letters = dict(RELEASED) if released else {"e0": 1}
    missing = [theirs for theirs, _ in layout().values() if theirs not in stored]
    missing += [name for name in AVERAGES if released and name not in stored]
    unknown = sorted(stored.keys() - {theirs for theirs, _ in layout().values()} - AVERAGES.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path}: is no mask codec: {len(missing)} arrays are missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(unknown)} are unknown ({', '.join(unknown[:3]) or 'none':.200}); want those of {NAMES[1]}"
        )
    for theirs, axes in [*layout().values(), *AVERAGES.items()]:
        if theirs in stored:
            check_array(path, theirs, stored[theirs], axes, letters)
    arrays = {ours: stored[theirs].astype(dtype) for ours, (theirs, _) in layout().items()}
    return Weights(arrays, PRECISIONS[dtype])


def layout():
    """List the arrays of a codec.

    Returns
    -------
    arrays : dict of str to (str, tuple)
        Our name to PyTorch's (numbers count layers, activations included), and to the axes: numbers, or letters that
        stand for one size wherever they come.
    """
    found = {"codes.weight": (EMBEDDING, (NUM_WORDS, "E"))}
    for n in range(HALVINGS):
        found |= affine(f"encoder.halved.{n}", f"encoder.{2 * n}", (f"e{n + 1}", f"e{n}", 4, 4))
        found |= affine(f"decoder.doubled.{n}", f"decoder.{2 * n + 4}", (f"d{n}", f"d{n + 1}", 4, 4), out=1)
    for side, width, first in (("encoder", "e4", 2 * HALVINGS), ("decoder", "d0", 2)):
        for n in range(NUM_BLOCKS):
            near, far = (f"{side[0]}.{n}.{part}" for part in ("near", "far"))
            ours, theirs = f"{side}.blocks.{n}", f"{side}.{first + n}.net"
            found |= affine(f"{ours}.near", f"{theirs}.0", (near, width, 3, 3))
            found |= affine(f"{ours}.far", f"{theirs}.2", (far, near, 3, 3))
            found |= affine(f"{ours}.branch", f"{theirs}.4", (width, far, 1, 1))
    found |= affine("encoder.out", "encoder.10", ("E", "e4", 1, 1))
    found |= affine("decoder.opened", "decoder.0", ("d0", "E", 1, 1))
    return found | affine("decoder.out", "decoder.12", (1, "d4", 1, 1))


def affine(ours, theirs, axes, out=0):
    """List the weight of a convolution, and its bias, which has the size of axis ``out``."""
    return {f"{ours}.weight": (f"{theirs}.weight", axes), f"{ours}.bias": (f"{theirs}.bias", (axes[out],))}


def check_array(path, name, array, axes, letters):
    """Hold an array against its axes, and learn the letters that are new."""
    place = f"{path}: {name}"
    wanted = tuple(letters.get(axis, axis) for axis in axes)
    if array.ndim != len(axes) or any(
        size != want if isinstance(want, int) else size < 1 for size, want in zip(array.shape, wanted, strict=True)
    ):
        raise CheckpointError(f"{place} is {array.shape}; want {tuple(map(str, wanted))}")
    letters |= {axis: size for axis, size in zip(axes, array.shape, strict=True) if isinstance(axis, str)}
    if not np.isfinite(array).all():
        raise CheckpointError(f"{place} holds NaN or infinity; get the file again")


def read_npz(path):
    """Read an archive of arrays without unpickling anything."""
    stored = {name: read() for name, read in archive_readers(path, CheckpointError).items()}
    wrong = [name for name, array in stored.items() if array.dtype != np.float32]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]!r:.80} is no array of float32, as the released codec's are")
    return stored


def read_safetensors(path):
    """Read the arrays of a safetensors file; 16-bit ones are widened."""
    file = open_safetensors(path)
    return {name: half.widen(file.array(name)) for name in file.tensors}
