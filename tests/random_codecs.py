"""Codecs for tests: the weights of the goldens, laid out as files."""

import importlib.util
import sys

import numpy as np

import golden
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.places.codec_file import layout


def import_inputs():
    """The module of tools/ that makes weights and masks; it needs NumPy alone."""
    spec = importlib.util.spec_from_file_location("codec_inputs", golden.ROOT / "tools" / "golden" / "codec_inputs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["codec_inputs"] = module
    spec.loader.exec_module(module)
    return module


codec_inputs = import_inputs()


def codec(name, dtype):
    """The codec of a golden, as a view of weights."""
    stored = codec_inputs.make_weights(name)
    arrays = {ours: stored[theirs].astype(dtype) for ours, (theirs, _) in layout().items()}
    return Weights(arrays, PRECISIONS[dtype])


def write_npz(path, **changes):
    """The released file, or one with arrays changed; None leaves one out."""
    arrays = {name: array.astype(np.float32) for name, array in codec_inputs.make_weights("released").items()}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path
