"""The same weights in another precision."""

import numpy as np
import pytest
from random_models import GENERATIONS, random_arrays, random_model

import npgemma
from npgemma.base.precision import PRECISIONS, round_bf16
from npgemma.base.weights import Weights
from npgemma.tracing.precisions import in_precision

CFG = GENERATIONS["paligemma-2"]


@pytest.mark.parametrize("start", ["float32", "float64"])
def test_bfloat16_rounds_the_weights_as_loading_them_so_does(start):
    rounded = {name: round_bf16(array) for name, array in random_arrays(CFG).items()}
    loaded_so = npgemma.Model(CFG, Weights(rounded, PRECISIONS["bf16-hf-eager"]))
    changed = in_precision(random_model(CFG, start), "bf16-hf-eager")
    ids = [[2, 5, 6, 7]]
    assert np.array_equal(npgemma.forward(changed, ids), npgemma.forward(loaded_so, ids))


def test_stored_bits_stay_as_they_are():
    bits = (round_bf16(np.ones((3, 2), np.float32)).view(np.uint32) >> 16).astype(np.uint16)
    model = npgemma.Model(CFG, Weights({"a": bits, "b": np.full(3, 0.1)}, PRECISIONS["float32"]))
    weights = in_precision(model, "bf16-f32-inside").weights
    assert weights["a"] is bits
    assert weights["b"].dtype == np.float32
    assert weights["b"][0] == np.float32(0.10009765625)  # the nearest of 8 significant bits
    assert list(weights.arrays) == ["a", "b"]


def test_the_models_own_precision_is_no_change():
    model = random_model(CFG, "float32")
    assert in_precision(model, None) is model
    assert in_precision(model, "float32") is model
