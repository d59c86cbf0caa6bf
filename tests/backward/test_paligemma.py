"""The whole model backwards, without PyTorch: complex step and finite differences, and what must be exactly so."""

import dataclasses

import numpy as np
import pytest
from differences import (
    COUNTS,
    NEAR,
    a_batch,
    central,
    complex_model,
    complex_step,
    copies_of,
    loss_of,
    losses_of,
    seen_by,
    wide_arrays,
)
from random_models import GENERATIONS, PALIGEMMA_1, PALIGEMMA_2, random_model

from npgemma.backward.tape import Sums
from npgemma.base.errors import InputError
from npgemma.base.tensors import tensors
from npgemma.learn.losses import IGNORED
from npgemma.learn.teaching import gradients_of, make_batch, teach

NOT_FLOAT = {"ids", "token_types", "attention_mask", "positions", "mask.full", "mask.sliding"}
FOLLOW = {"text.cos", "text.sin"}


@pytest.fixture(scope="module", params=GENERATIONS)
def case(request):
    cfg = GENERATIONS[request.param]
    batch = a_batch(cfg)
    return cfg, batch, gradients_of(random_model(cfg), batch)


def test_every_weights_gradient_equals_the_complex_step(case):
    cfg, batch, found = case
    arrays, rng = wide_arrays(cfg), np.random.default_rng(1)
    assert set(found.weights) == set(arrays)
    for name, array in arrays.items():
        direction = rng.normal(size=array.shape)
        slope = complex_step(lambda x, name=name: loss_of(complex_model(cfg, arrays | {name: x}), batch),
                             array, direction)
        d = found.weights[name]
        # A key's bias in the vision tower adds the same to every score of a row: its gradient is exactly 0.
        allowed = 1e-15 if name.startswith("vision") and name.endswith("k.bias") else 1e-13 * np.linalg.norm(d)
        assert abs(np.sum(d * direction) - slope) <= allowed, name


def test_every_weights_gradient_equals_finite_differences(case):
    cfg, batch, found = case
    arrays, rng = wide_arrays(cfg), np.random.default_rng(2)
    model = random_model(cfg)
    seen = seen_by(model.weights, cfg, batch)
    for name, array in arrays.items():
        direction = rng.normal(size=array.shape)
        direction /= np.linalg.norm(direction)
        soft = seen if name.startswith("text.") else None  # the decoder's weights change nothing that was seen

        def loss(step, name=name, array=array, direction=direction, soft=soft):
            moved = dataclasses.replace(model.weights, arrays=arrays | {name: array + step * direction})
            return loss_of(dataclasses.replace(model, weights=moved), batch, soft=soft)

        assert abs(np.sum(found.weights[name] * direction) - central(loss, 1e-3)) <= 1e-9, name


def test_every_named_tensors_gradient_equals_finite_differences(case):
    cfg, batch, found = case
    model, rng = random_model(cfg), np.random.default_rng(3)
    # All steps of a difference at once: copies of the batch, the tensor moved by another step in each.
    step, copies = 1e-3, copies_of(batch, len(NEAR))
    named = set(tensors(cfg, 2, 2, batch.ids.shape[1])) - NOT_FLOAT - FOLLOW
    assert set(found.tensors) == named
    for name, d in found.tensors.items():
        direction = rng.normal(size=d.shape)
        direction /= np.linalg.norm(direction)
        moved = {name: np.concatenate([each * step * direction for each in NEAR])}
        losses = losses_of(model, copies, lambda each, x, moved=moved: x + moved[each] if each in moved else None,
                           copies=len(NEAR))
        assert abs(np.sum(d * direction) - np.dot(COUNTS, losses) / step) <= 1e-9, name


def test_order_of_gradients_is_the_traces_reversed(case):
    cfg, batch, found = case
    seen = []
    loss_of(random_model(cfg), batch, lambda name, x: seen.append(name))
    assert list(found.tensors) == [name for name in reversed(seen) if name not in NOT_FLOAT | FOLLOW]


def test_a_vision_keys_bias_has_gradient_zero(case):
    cfg, _, found = case
    biases = [d for name, d in found.weights.items() if name.startswith("vision") and name.endswith("attn.k.bias")]
    assert len(biases) == cfg.vision.depth
    assert all(np.max(np.abs(d)) < 1e-16 for d in biases)


def test_padding_gets_exactly_zero_everywhere(case):
    _, batch, found = case
    padding = batch.attention_mask == 0
    assert padding.any()
    for name, d in found.tensors.items():
        if name.startswith("text.") and not name.endswith(("scores", "capped", "probs")):
            assert not d[padding].any(), name
        if name.startswith("text.") and name.endswith("scores"):
            assert not d.transpose(0, 4, 1, 2, 3)[padding].any(), name


def test_the_tied_table_is_used_twice():
    """The head's part and the lookup's part, each alone: where only one is added, this differs."""
    batch, model = a_batch(PALIGEMMA_2), random_model(PALIGEMMA_2)
    table = gradients_of(model, batch).weights["text.embedded.weight"]
    never_read = np.setdiff1d(np.arange(43), batch.ids)
    read_only_by_head = table[never_read]
    assert read_only_by_head.any()
    arrays = wide_arrays(PALIGEMMA_2)
    direction = np.zeros_like(table)
    direction[batch.ids[0, -2]] = 1.0
    slope = complex_step(
        lambda x: loss_of(complex_model(PALIGEMMA_2, arrays | {"text.embedded.weight": x}), batch),
        arrays["text.embedded.weight"], direction,
    )
    assert np.sum(table * direction) == pytest.approx(slope, rel=1e-12)


def test_micro_batches_add_up_to_the_whole_batch(case):
    cfg, batch, found = case
    model, sums = random_model(cfg), Sums(wide_arrays(cfg))
    loss = 0.0
    for row in range(2):
        parts = {field.name: getattr(batch, field.name)[row : row + 1] for field in dataclasses.fields(batch)}
        loss += teach(model, dataclasses.replace(batch, **parts), sums, 1 / batch.count)
    assert loss == pytest.approx(found.loss, rel=1e-14)
    for name, d in found.weights.items():
        np.testing.assert_allclose(sums[name], d, rtol=0, atol=1e-14 * max(1.0, np.abs(d).max()), err_msg=name)


def test_gradients_are_those_of_float64_in_float32_too(case):
    cfg, batch, found = case
    narrow = gradients_of(random_model(cfg, "float32"), batch)
    for name, d in found.weights.items():
        assert narrow.weights[name].dtype == np.float32
        allowed = 1e-6 if name.endswith("k.bias") else 3e-6 * np.linalg.norm(d)
        assert np.linalg.norm(narrow.weights[name] - d) <= allowed, name
    assert all(d.dtype == np.float32 for d in narrow.tensors.values())


def test_a_batch_without_pictures_has_no_gradient_in_the_vision_tower():
    batch = make_batch(PALIGEMMA_1, [([2, 5, 6], [7, 1])])
    found = gradients_of(random_model(PALIGEMMA_1), batch)
    assert found.weights and not [name for name in found.weights if name.startswith(("vision", "connector"))]


def test_nothing_labelled_is_a_loss_of_zero_and_gradients_of_zero():
    batch = a_batch(PALIGEMMA_2)
    silent = dataclasses.replace(batch, labels=np.full_like(batch.labels, IGNORED))
    sums = Sums(wide_arrays(PALIGEMMA_2))
    assert teach(random_model(PALIGEMMA_2), silent, sums) == 0.0
    assert all(not d.any() for d in sums.values())


def test_recipes_that_round_are_refused():
    with pytest.raises(InputError, match="bf16-hf-eager rounds, and rounding has no gradient"):
        gradients_of(random_model(PALIGEMMA_2, "bf16-hf-eager"), a_batch(PALIGEMMA_2))


def test_a_label_at_padding_is_refused():
    """A row without visible keys is uniform whatever its scores, and would pass gradient all the same."""
    batch = a_batch(PALIGEMMA_2)
    labels = np.where(batch.attention_mask == 0, 5, batch.labels)
    with pytest.raises(InputError, match="labels: one stands at padding"):
        gradients_of(random_model(PALIGEMMA_2), dataclasses.replace(batch, labels=labels))
