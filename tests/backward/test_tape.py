"""The tape: reading, naming, replacing, remembering less."""

import dataclasses

import numpy as np
import pytest
from differences import a_batch
from random_models import GENERATIONS, PALIGEMMA_1, PALIGEMMA_2, random_arrays, random_model

from npgemma import forward
from npgemma.backward import text
from npgemma.backward.tape import Sums, Tape
from npgemma.base.errors import InputError, TensorError
from npgemma.learn.teaching import gradients_of, new_tape, read, see, teach


def record(model, batch, rerun=False):
    tape = new_tape(model, Sums(()), rerun)
    read(tape, model, batch, see(tape, model, batch.pixels))
    return tape


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_running_blocks_again_gives_the_same_bits(generation, precision):
    cfg = GENERATIONS[generation]
    model, batch = random_model(cfg, precision), a_batch(cfg)
    whole, again = (Sums(model.weights.arrays) for _ in range(2))
    assert teach(model, batch, whole, 0.1) == teach(model, batch, again, 0.1, rerun=True)
    assert set(whole) == set(again) == set(model.weights.arrays)
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


NARROW = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.out")


def test_rerunning_remembers_outputs_and_narrow_products_of_blocks_and_nothing_else_of_them():
    model = random_model(PALIGEMMA_2)
    tape = record(model, a_batch(PALIGEMMA_2), rerun=True)
    inside = [name for name in tape.tensors if ".blocks." in name]
    text = [f"text.blocks.{n}.{short}" for n in range(3) for short in (*NARROW, "out")]
    assert inside == [f"vision.blocks.{n}.out" for n in range(2)] + text


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_is_remembered_is_not_multiplied_again(generation):
    """Without these matrices the block runs again, to the bits of the first time."""
    model, batch = random_model(GENERATIONS[generation]), a_batch(GENERATIONS[generation])
    whole, tape = record(model, batch), record(model, batch, rerun=True)
    again, block = tape.tensors, "text.blocks.1."
    assert set(again) >= {f"{block}{short}" for short in NARROW}
    again.weights = dataclasses.replace(
        again.weights,
        arrays={name: array for name, array in again.weights.arrays.items()
                if name not in {f"{block}{short}.weight" for short in NARROW}},
    )
    inside = [name for name in whole.tensors if name.startswith(block)]
    assert len(inside) > 15 and all(np.array_equal(again[name], whole.tensors[name]) for name in inside)


def test_watching_gradients_changes_no_bit():
    model, batch = random_model(PALIGEMMA_2), a_batch(PALIGEMMA_2)
    plain = gradients_of(model, batch).weights
    watched = gradients_of(model, batch, observe=lambda name, d: None).weights
    assert all(np.array_equal(plain[name], watched[name]) for name in plain)


def test_a_replaced_gradient_goes_on():
    model, batch = random_model(PALIGEMMA_2), a_batch(PALIGEMMA_2)

    def silence(name, d):
        return np.zeros_like(d) if name == "text.blocks.1.attn.out" else None

    found = gradients_of(model, batch, observe=silence).weights
    plain = gradients_of(model, batch).weights
    assert not found["text.blocks.1.attn.q.weight"].any() and plain["text.blocks.1.attn.q.weight"].any()
    assert np.array_equal(found["text.blocks.2.attn.q.weight"], plain["text.blocks.2.attn.q.weight"])
    assert not np.array_equal(found["text.blocks.0.attn.q.weight"], plain["text.blocks.0.attn.q.weight"])


def test_an_observer_cannot_write_into_a_gradient():
    def write(name, d):
        d[...] = 0.0

    with pytest.raises(ValueError, match="read-only"):
        gradients_of(random_model(PALIGEMMA_1), a_batch(PALIGEMMA_1), observe=write)


def test_a_gradient_of_another_shape_is_refused():
    """Logits of one row would be broadcast over all, and nobody would see it."""
    model, batch = random_model(PALIGEMMA_1), a_batch(PALIGEMMA_1)
    kept = {}
    prompt = {"token_types": batch.token_types, "attention_mask": batch.attention_mask}
    pixels = batch.pixels[:, None]
    forward(model, batch.ids, pixels, **prompt, last_only=True, observe=kept.__setitem__)
    tape = Tape(kept, model.weights, Sums(()))
    d_logits = np.ones((*batch.ids.shape, PALIGEMMA_1.text.vocab_size))
    with pytest.raises(InputError, match=r"text.logits: the gradient is \(2, 10, 41\) .*the tensor \(2, 1, 41\)"):
        text.logits(d_logits, kept["text.norm"], tape.at("text"), PALIGEMMA_1.text)


def test_a_partial_tape_says_what_it_lacks():
    model, batch = random_model(PALIGEMMA_1), a_batch(PALIGEMMA_1)
    tape = record(model, batch)
    partial = {name: x for name, x in tape.tensors.items() if name != "text.blocks.0.attn.k_rot"}
    lacking = dataclasses.replace(tape, tensors=partial)
    with pytest.raises(TensorError, match="lacks 'text.blocks.0.attn.k_rot', which going backwards needs"):
        text.decode(np.ones_like(tape["text.norm"]), tape["text.spliced"], lacking.at("text"), PALIGEMMA_1.text)


def test_only_wanted_weights_get_gradients_and_the_others_are_not_gone_back_to():
    model, batch = random_model(PALIGEMMA_2), a_batch(PALIGEMMA_2)
    whole = gradients_of(model, batch).weights
    sums = Sums(["text.blocks.0.attn.v.weight"])
    teach(model, batch, sums, 1 / batch.count)
    assert list(sums) == ["text.blocks.0.attn.v.weight"]
    np.testing.assert_allclose(sums["text.blocks.0.attn.v.weight"], whole["text.blocks.0.attn.v.weight"], atol=1e-15)


def test_the_vision_tower_is_left_alone_where_nobody_wants_it(monkeypatch):
    from npgemma.learn import teaching

    model, batch = random_model(PALIGEMMA_2), a_batch(PALIGEMMA_2)
    monkeypatch.setattr(teaching.backward, "see", None)
    teach(model, batch, Sums(["text.norm.weight"]))
    with pytest.raises(TypeError):
        teach(model, batch, Sums(["vision.norm.weight"]))


def test_stored_sixteen_bit_weights_have_the_gradients_of_the_widened_ones():
    batch = a_batch(PALIGEMMA_2)
    bits, wide = {}, {}
    for name, array in random_arrays(PALIGEMMA_2).items():
        short = (array.view(np.uint32) >> 16).astype(np.uint16)
        wide[name] = (short.astype(np.uint32) << 16).view(np.float32)
        matrix = array.ndim == 2 and "positions" not in name
        bits[name] = short if matrix else wide[name]
    model = random_model(PALIGEMMA_2, "float32")
    stored, widened = (
        gradients_of(dataclasses.replace(model, weights=dataclasses.replace(model.weights, arrays=arrays)), batch)
        for arrays in (bits, wide)
    )
    for name, d in widened.weights.items():
        np.testing.assert_allclose(stored.weights[name], d, atol=2e-6 * max(1.0, np.abs(d).max()), err_msg=name)
