"""The table against the model: every row's expression, evaluated on the tensors of a run, gives the row's tensor."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma import forward, masks, ops, paligemma, rotary
from npgemma.base import expressions, inputs, table
from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import Call, schema, tensors
from npgemma.tracing.evaluate import evaluate


def prompts(cfg):
    """Calls of :func:`forward` that take different ways through the model, by name."""
    plain = random_prompt(cfg)
    padded = plain | {"attention_mask": np.ones_like(plain["ids"])}
    padded["attention_mask"][0, -2:] = 0
    left = plain | {"attention_mask": np.ones_like(plain["ids"])}
    P, length = cfg.vision.num_patches, 2 * cfg.vision.num_patches + 4
    left["attention_mask"][1, P] = 0
    two = random_prompt(cfg, num_text=4 + P, num_suffix=3)
    two["ids"][:, :length] = np.where(np.arange(length) < 2 * P, cfg.image_token_id, two["ids"][:, :length])
    two["pixels"] = np.concatenate([two["pixels"], -two["pixels"]], axis=1)
    return {
        "a suffix": plain,
        "padding on the right": padded,
        "padding within": left,
        "two pictures": two,
        "text only": {"ids": np.where(plain["ids"] == cfg.image_token_id, 3, plain["ids"])},
        "the last position only": padded | {"last_only": True},
    }


def check(cfg, weights, call, seen, before=()):
    """Hold each row of one call against its tensor."""
    for name, tensor in tensors(cfg, call.batch, call.pictures, call.length, call.past, call.last_only).items():
        if not tensor.row.expression:
            continue
        made = evaluate(name, seen, weights, cfg, call, before)
        assert made.shape == seen[name].shape and made.dtype == seen[name].dtype, name
        if tensor.kind == "float":
            size = max(np.max(np.abs(seen[name])), 1e-300)
            assert np.max(np.abs(made - seen[name])) <= 1e-13 * size, name
        else:
            assert np.array_equal(made, seen[name]), name


@pytest.mark.parametrize("prompt", prompts(GENERATIONS["paligemma-1"]))
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_row_evaluates_to_its_tensor(generation, prompt):
    cfg, seen = GENERATIONS[generation], {}
    arguments, model = prompts(cfg)[prompt], random_model(cfg)
    forward(model, **arguments, observe=seen.__setitem__)
    B, T = np.shape(arguments["ids"])
    pictures = len(seen["pixels"]) if "pixels" in seen else 0
    check(cfg, model.weights, Call(B, pictures, T, last_only="last_only" in arguments), seen)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_row_of_cached_steps_evaluates_to_its_tensor(generation):
    cfg = GENERATIONS[generation]
    model, prompt = random_model(cfg), random_prompt(cfg, num_suffix=0)
    calls = [{}]
    mask = np.ones_like(prompt["ids"])
    mask[0, -1] = 0
    w = model.weights.watched_by(calls[0].__setitem__)
    soft = paligemma.see(w, cfg, prompt["pixels"][:, 0])
    positions = inputs.counted_positions(mask, cfg)
    _, state = paligemma.prefill(w, cfg, prompt["ids"], soft, prompt["token_types"], mask, positions)
    past = prompt["ids"].shape[1]
    for number, length in enumerate((1, 2, 1)):
        calls.append({})
        ids = np.full((2, length), 5 + number)
        w = model.weights.watched_by(calls[-1].__setitem__)
        _, state = paligemma.step(w, cfg, ids, ids * 0 + 12 + number + np.arange(length), state)
        check(cfg, model.weights, Call(2, 0, length, past), calls[-1], calls[:-1])
        past += length


@pytest.mark.parametrize("precision", ["float32", "bf16-hf-eager", "bf16-f32-inside"])
def test_rows_evaluate_in_the_recipes_too(precision):
    cfg, seen = GENERATIONS["paligemma-2"], {}
    model, prompt = random_model(cfg, precision), random_prompt(cfg)
    forward(model, **prompt, observe=seen.__setitem__)
    call = Call(2, 2, prompt["ids"].shape[1])
    for name, tensor in tensors(cfg, 2, 2, call.length).items():
        if tensor.row.expression:
            made = evaluate(name, seen, model.weights, cfg, call)
            assert np.mean(made == seen[name]) > 0.9, name


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_name_of_an_expression_is_known_and_stands_before_its_row(generation):
    cfg, call = GENERATIONS[generation], Call(length=9)
    rows, before = tensors(cfg, length=9), set(schema(cfg))
    known = {**rows, **schema(cfg)}
    for name, row in rows.items():
        assert set(expressions.inputs_of(name, row, cfg, call, known)) <= before, name
        before.add(name)


BROKEN = {
    "a swapped input": ("text.blocks.{n}.attn.q", "split_heads(linear(attn_norm, k.weight), K)"),
    "K and G swapped": ("text.blocks.{n}.attn.scores",
                        "inner(group_heads(q_rot, G) @ group_heads(earlier(k_rot), K).mT) * query_scale"),
    "the other mask": ("text.blocks.{n}.attn.probs", "softmax(hide(capped, mask.full))"),
    "a wrong sign": ("text.blocks.{n}.middle", "x - attn_post_norm"),
    "the past left out": ("text.blocks.{n}.attn.mixed", "merge_heads(probs @ group_heads(v, K))"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_row_that_says_another_thing_is_found(fault, monkeypatch):
    broken, expression = BROKEN[fault]
    rows = tuple(replace(row, expression=expression) if row.name == broken else row for row in table.ROWS)
    monkeypatch.setattr("npgemma.base.tensors.ROWS", rows)
    with pytest.raises((AssertionError, ValueError)):
        test_every_row_evaluates_to_its_tensor("paligemma-2", "a suffix")
        test_every_row_of_cached_steps_evaluates_to_its_tensor("paligemma-2")


def test_a_name_that_is_nothing_is_named(monkeypatch):
    wrong = "vision.blocks.{n}.middle"
    rows = tuple(replace(row, expression="x + atn.out") if row.name == wrong else row for row in table.ROWS)
    monkeypatch.setattr("npgemma.base.tensors.ROWS", rows)
    with pytest.raises(LookupError, match="vision.blocks.0.middle: its expression names 'atn.out'"):
        test_every_name_of_an_expression_is_known_and_stands_before_its_row("paligemma-1")


EXAMPLES = {
    "linear": ((3, 4), (5, 4), (5,)),
    "layer_norm": ((3, 4), (4,), (4,), 0.1),
    "rms_norm": ((3, 4), (4,), 0.1),
    "soft_cap": ((3, 4), 0.7, PRECISIONS["float64"].inner),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_printed_formula_is_the_equation(name):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=each) if isinstance(each, tuple) else each for each in EXAMPLES[name]]
    words = {
        "mean": lambda x: np.mean(x, axis=-1, keepdims=True), "var": lambda x: np.var(x, axis=-1, keepdims=True),
        "sqrt": np.sqrt, "tanh": np.tanh,
    }
    given = dict(zip(expressions.ARGUMENTS[name], values, strict=True))
    printed = eval(expressions.FORMULAS[name], words | given)
    np.testing.assert_allclose(printed, getattr(ops, name)(*values), rtol=1e-13)


def test_the_formula_of_angles_is_the_equation():
    positions = np.array([[1, 2, 4000]])
    i = np.arange(4)
    given = {"positions": positions[..., None], "theta": 100.0, "head_dim": 8, "i": i}
    printed = eval(expressions.FORMULAS["angles"], given)
    np.testing.assert_allclose(printed, rotary.angles(positions, 8, 100.0, np.float64), rtol=1e-14)


def test_formulas_name_the_arguments_of_their_equations():
    assert set(expressions.FORMULAS) == set(expressions.ARGUMENTS)
    for name, arguments in expressions.ARGUMENTS.items():
        module = next(module for module in (ops, rotary, masks) if hasattr(module, name))
        assert tuple(inspect.signature(getattr(module, name)).parameters) == arguments
