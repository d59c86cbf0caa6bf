"""Ten steps against PyTorch's optimisers through transformers, and what an optimiser must leave alone."""

import dataclasses

import numpy as np
import pytest
from golden_gradients import batch_of
from golden_learning import LEARNING, equals_prints

import golden
from npgemma.backward.tape import Sums
from npgemma.base import elsewhere
from npgemma.learn import schedules
from npgemma.learn.optimisers import Learner, Settings, orthogonal
from npgemma.learn.teaching import teach

SEED = 40_000  # golden_lessons.SEED


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_losses_of_ten_steps_equal_pytorchs(kind):
    """Catches what one gradient misses: decay, bias correction, accumulation of the tied table, clipping, schedule."""
    model, batch = golden.model("tiny-2", "float64"), batch_of("tiny-2", "whole")
    weights = {name: array.astype(np.float64) for name, array in wide(model).items()}
    learner = Learner(weights, Settings(decay=0.1, muon=kind == "muon"))
    expected = LEARNING["steps"][kind]
    for step in range(10):
        now = dataclasses.replace(model, weights=dataclasses.replace(model.weights, arrays=learner.weights))
        sums = Sums(learner.weights)
        loss = teach(now, batch, sums, 1 / batch.count)
        assert loss == pytest.approx(expected["losses"][step], rel=1e-11), step
        clipped, norm = schedules.clip(sums, 1.0)
        assert norm == pytest.approx(expected["norms"][step], rel=1e-10), step
        learner.learn(clipped, 0.02 * schedules.cosine(step, 10, 3))
    keys = {theirs: ours for ours, theirs in elsewhere.keys(model.config, "C").items()}
    for theirs, numbers in expected["weights"].items():
        if "k_proj.bias" in theirs:
            continue  # Its gradient is rounding alone, whose sign AdamW follows.
        equals_prints([numbers], learner.weights[keys[theirs]], tolerance=1e-9, seeds=SEED)


def wide(model):
    return {name: model.weights[name] for name in model.weights.arrays}


def test_read_only_weights_are_learned_from_a_copy():
    weight = np.ones((2, 3))
    weight.flags.writeable = False
    learner = Learner({"w": weight})
    learner.learn({"w": np.ones((2, 3))}, 0.1)
    assert np.all(weight == 1.0) and np.all(learner.weights["w"] < 1.0)


def test_a_weight_without_gradient_stays_to_the_bit():
    frozen = np.random.default_rng(0).normal(size=(2, 3))
    learner = Learner({"w": np.ones((2, 3)), "frozen": frozen}, Settings(decay=0.5))
    learner.learn({"w": np.ones((2, 3))}, 0.1)
    assert learner.weights["frozen"] is frozen


@pytest.mark.parametrize("muon", [False, True])
def test_matrices_inside_blocks_forget_but_norms_and_tables_do_not(muon):
    shapes = {"text.blocks.0.mlp.up.weight": (2, 3), "text.blocks.0.mlp_norm.weight": (3,),
              "text.embedded.weight": (2, 3), "vision.positions.weight": (2, 3)}
    learner = Learner({name: np.ones(shape) for name, shape in shapes.items()}, Settings(decay=0.5, muon=muon))
    learner.learn({name: np.zeros(shape) for name, shape in shapes.items()}, 0.1)
    left = {name: np.unique(weight).tolist() for name, weight in learner.weights.items()}
    assert left == dict.fromkeys(shapes, [1.0]) | {"text.blocks.0.mlp.up.weight": pytest.approx([0.95])}


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_muon_makes_all_directions_about_equally_long(shape):
    x = np.random.default_rng(1).normal(size=shape) * np.logspace(0, 2, shape[1])
    sizes = np.linalg.svd(orthogonal(x), compute_uv=False)
    assert sizes.max() < 1.3 and sizes.min() > 0.3
