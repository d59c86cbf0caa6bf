"""Low-rank adapters: nothing changes at first, factors' gradients without the whole, what cannot be adapted."""

import dataclasses

import numpy as np
import pytest
from differences import a_batch, central, loss_of
from random_models import PALIGEMMA_1, PALIGEMMA_2, random_arrays, random_model

from npgemma.backward.tape import Product
from npgemma.base.adapted import Adapted, merged
from npgemma.base.errors import InputError
from npgemma.learn import lora
from npgemma.learn.teaching import gradients_of, teach

NAMES = ["text.blocks.1.attn.q.weight", "vision.blocks.0.mlp.up.weight"]


def adapted_model(factors, scale=2.0):
    model = random_model(PALIGEMMA_2)
    arrays = Adapted(model.weights.arrays, factors, scale)
    return dataclasses.replace(model, weights=dataclasses.replace(model.weights, arrays=arrays))


def some_factors(seed=0):
    rng = np.random.default_rng(seed)
    factors = lora.new_factors(PALIGEMMA_2, NAMES, 3, rng, np.float64)
    return {name: rng.normal(size=factor.shape) * 0.3 for name, factor in factors.items()}


def test_fresh_factors_change_nothing():
    factors = lora.new_factors(PALIGEMMA_2, NAMES, 3, np.random.default_rng(0))
    batch = a_batch(PALIGEMMA_2)
    assert loss_of(adapted_model(factors), batch) == loss_of(random_model(PALIGEMMA_2), batch)


def test_an_adapted_matrix_reads_base_and_product():
    factors, base = some_factors(), random_arrays(PALIGEMMA_2)
    adapted = Adapted(base, factors, 2.0)
    up, down = factors[f"{NAMES[0]}/up"], factors[f"{NAMES[0]}/down"]
    np.testing.assert_array_equal(adapted[NAMES[0]], base[NAMES[0]] + 2.0 * (up @ down))
    assert adapted["text.norm.weight"] is base["text.norm.weight"]
    assert list(adapted) == list(base) and len(merged(adapted)) == len(base)


def test_factors_gradients_equal_finite_differences():
    factors, batch = some_factors(), a_batch(PALIGEMMA_2)
    sums = lora.FactorSums(factors, 2.0)
    teach(adapted_model(factors), batch, sums, 1 / batch.count, rerun=True)
    assert set(sums) == set(factors)
    rng = np.random.default_rng(1)
    for name, factor in factors.items():
        direction = rng.normal(size=factor.shape)
        direction /= np.linalg.norm(direction)

        def loss(step, name=name, factor=factor, direction=direction):
            return loss_of(adapted_model(factors | {name: factor + step * direction}), batch)

        assert abs(np.sum(sums[name] * direction) - central(loss, 1e-3)) <= 1e-9, name


def test_factors_gradients_are_those_of_the_whole_matrix_which_is_never_made(monkeypatch):
    factors, batch = some_factors(), a_batch(PALIGEMMA_2)
    model = adapted_model(factors)
    whole = gradients_of(model, batch, only=NAMES).weights
    monkeypatch.delattr(Product, "whole")
    sums = lora.FactorSums(factors, 2.0)
    teach(model, batch, sums, 1 / batch.count)
    for name in NAMES:
        up, down = factors[f"{name}/up"], factors[f"{name}/down"]
        np.testing.assert_allclose(sums[f"{name}/up"], 2.0 * whole[name] @ down.T, atol=1e-14)
        np.testing.assert_allclose(sums[f"{name}/down"], 2.0 * up.T @ whole[name], atol=1e-14)


def test_a_stored_base_stays_stored():
    base = random_arrays(PALIGEMMA_2)
    bits = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in base.items() if array.ndim == 2}
    adapted = Adapted(base | bits, lora.new_factors(PALIGEMMA_2, NAMES, 2, np.random.default_rng(0)), 1.0)
    widened = (bits[NAMES[0]].astype(np.uint32) << 16).view(np.float32)
    assert adapted[NAMES[0]].dtype == np.float32 and np.array_equal(adapted[NAMES[0]], widened)
    assert adapted["text.blocks.0.attn.q.weight"].dtype == np.uint16


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("text.*.attn_norm", "text.blocks.0.attn_norm is no matrix of a product"),
        ("text.embedded", "text.embedded is no matrix of a product"),
        ("text.*.atn.*", "fits none of"),
    ],
)
def test_what_cannot_be_adapted_is_refused(on, said):
    with pytest.raises(InputError, match=said):
        lora.adapted_names(PALIGEMMA_1, on)


def test_a_pattern_of_attention_means_its_matrices():
    names = lora.adapted_names(PALIGEMMA_1, "text.*.attn.*")
    assert names == [f"text.blocks.{n}.attn.{one}.weight" for n in range(2) for one in ("q", "k", "v", "out")]


def test_a_rank_below_one_is_refused():
    with pytest.raises(InputError, match="lora: came as 0; want a rank of 1 or more"):
        lora.new_factors(PALIGEMMA_1, NAMES, 0, np.random.default_rng(0))
