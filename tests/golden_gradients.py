"""Reads golden/gradients and judges npgemma's gradients by it."""

import json

import numpy as np

import golden
from npgemma.backward.tape import Sums
from npgemma.base import elsewhere
from npgemma.learn.teaching import Batch, teach

KINDS = json.loads((golden.GOLDEN / "gradients" / "MANIFEST.json").read_text())["kinds"]
CASES = [(model, kind) for model, kinds in KINDS.items() for kind in kinds]


def batch_of(model, kind):
    """A batch of the goldens, its pictures among those stored beside the model."""
    stored = golden.below(golden.read(f"gradients/{model}"), kind)
    picked = stored["picked"]
    pixels = golden.read(f"{model}/pictures")["pixels"][picked] if picked.size else None
    names = ("ids", "token_types", "attention_mask", "positions", "labels")
    return Batch(*(stored[name] for name in names), pixels)


def differences(name, kind):
    """A line for the loss and for each weight whose gradient is not PyTorch's to 1e-13 of its size."""
    model, batch = golden.model(name, "float64"), batch_of(name, kind)
    stored, row = golden.read(f"gradients/{name}"), KINDS[name].index(kind)
    sums = Sums(model.weights.arrays)
    loss, expected_loss = teach(model, batch, sums, 1 / batch.count), stored["losses"][row]
    lines = [] if abs(loss - expected_loss) <= 1e-13 * expected_loss else [f"loss: {loss!r}, not {expected_loss!r}"]
    for ours, theirs in elsewhere.keys(model.config, "C").items():
        expected = stored[theirs][row]
        found = sums[ours] if ours in sums else np.zeros(model.weights.arrays[ours].shape)
        numbers = golden.golden_inputs.fingerprint(found, int(stored[f"seed/{theirs}"]))
        # A key's bias in the vision tower has gradient 0; what is left is rounding.
        is_zero = ours.startswith("vision") and ours.endswith("k.bias")
        off, allowed = np.max(np.abs(numbers - expected)), 1e-15 if is_zero else 1e-13 * expected[-1]
        if not off <= allowed:
            lines.append(f"{ours}: off by {off:.2g}, allowed {allowed:.2g}")
    return lines
