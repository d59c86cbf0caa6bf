"""Codecs and masks for tests: those of the goldens."""

import importlib.util
import json
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
MASKS = json.loads((golden.GOLDEN / "masks" / "cases.json").read_text())["masks"]


def mask_of(case):
    """The mask of one of the golden's cases."""
    return codec_inputs.uniform(case["seed"], tuple(case["size"])) < case["threshold"]


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
