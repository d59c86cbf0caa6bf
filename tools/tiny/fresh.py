"""The model in the box before it has learnt anything: random weights, and the sines that locations share.

The architecture is that of ``npgemma/tiny/config.json``.  Letters: V vocabulary, D width.
"""

import numpy as np

from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import schema
from npgemma.base.weights import Weights
from npgemma.checkpoints.hf_config import read_config
from npgemma.checkpoints.loading import TINY
from npgemma.paligemma import Model

TABLE, WAVES = "text.embedded.weight", "waves.weight"
LOCATIONS = slice(639, 639 + 1024)


def fresh_weights(cfg, seed):
    """Weights by name, float32.

    Linear weights start at the scale of their inputs, half of it where a branch of the vision tower ends; the norms
    after each branch of the decoder at 0.3, so that a fresh block changes little.
    """
    rng = np.random.default_rng([seed, 0])
    found = {}
    for name, weight in schema(cfg).items():
        if len(weight.shape) == 1:
            found[name] = np.full(weight.shape, start_of(name), np.float32)
            continue
        scale = weight.shape[1] ** -0.5
        if name == TABLE:
            scale = 0.02
        if name.startswith("vision.blocks") and name.endswith(".out.weight"):
            scale *= 0.5
        found[name] = (rng.standard_normal(weight.shape) * scale).astype(np.float32)
    found[WAVES] = (rng.standard_normal((cfg.text.width, waves().shape[1])) * 0.03).astype(np.float32)
    return found


def start_of(name):
    """The number that all of a vector starts with: gains of LayerNorm 1, RMSNorm an offset from one, biases 0."""
    if "post_norm" in name:
        return -0.7
    return 1.0 if name.startswith("vision") and "norm" in name and name.endswith(".weight") else 0.0


def waves():
    """(1024, 17) sines of a location: neighbours are alike, so that all locations learn from each one."""
    value = np.arange(1024)[:, None] / 1023
    turns = 2 * np.pi * value * 2.0 ** np.arange(-1, 7)
    fade = 0.8 ** np.arange(8)
    return np.concatenate([np.ones((1024, 1)), np.sin(turns) * fade, np.cos(turns) * fade], axis=1).astype(np.float32)


def with_waves(weights):
    """The model's own weights, the waves added to the rows of the locations: what is run, and what is saved."""
    table = weights[TABLE].copy()
    table[LOCATIONS] += waves() @ weights[WAVES].T
    own = {name: weight for name, weight in weights.items() if not name.startswith(("waves", "lessons"))}
    return own | {TABLE: table}


def to_waves(gradients):
    """Add the gradient of the waves, which follows from the table's, to ``gradients``."""
    gradients[WAVES] = gradients[TABLE][LOCATIONS].T @ waves()


def model_of(cfg, weights):
    """A model of these weights, float32, without tokenizer."""
    return Model(cfg, Weights(with_waves(weights), PRECISIONS["float32"]))


def architecture():
    """The configuration of the box."""
    return read_config(TINY)
