"""What PyTorch said of losses, batch norm and ten optimiser steps, and how it is compared."""

import json

import numpy as np

import golden

LEARNING = json.loads((golden.GOLDEN / "learning" / "learning.json").read_text())


def equals_prints(expected, *gradients, tolerance=1e-12, seeds=None):
    """Hold gradients against stored fingerprints, each within ``tolerance`` of its size."""
    assert len(expected) == len(gradients)
    for number, (numbers, gradient) in enumerate(zip(expected, gradients, strict=True)):
        seed = 900 + 3 * number if seeds is None else seeds
        found = golden.golden_inputs.fingerprint(np.asarray(gradient), seed)
        assert np.max(np.abs(found - numbers)) <= tolerance * max(numbers[-1], 1e-30), number
