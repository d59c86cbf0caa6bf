"""Everything that a model does, on a pretended graphics card: the host's numbers, one wait a token, nothing mixed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_device import HERE, TRAFFIC, planted, to_device, to_host
from random_models import GENERATIONS, random_arrays, random_prompt

import npgemma
from npgemma import forward
from npgemma.base import inputs, products
from npgemma.base.cache import take_state
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.checkpoints.loading import TINY
from npgemma.generation.generate import generate_batch
from npgemma.generation.requests import Request
from npgemma.paligemma import Model, prefill, see, step

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
PICTURES = sorted((TINY / "pictures").glob("*.png"))


@pytest.fixture(autouse=True)
def card():
    with planted(cards=2) as traffic:
        yield traffic


@pytest.fixture
def plain_products(monkeypatch):
    """The host multiplies few rows by dot products, and a card does not: here both multiply in one order."""
    monkeypatch.setattr(products, "linear", lambda x, weight, linear=products.linear: (
        products.linear_plain(x, weight) if isinstance(weight, np.ndarray) else linear(x, weight)))


def on_device(model):
    """A model of the host, copied to the card."""
    arrays = {name: to_device(np.array(array)) for name, array in model.weights.arrays.items()}
    return replace(model, weights=replace(model.weights, arrays=arrays))


def random_model(cfg, precision):
    arrays = {name: x.astype(PRECISIONS[precision].dtype) for name, x in random_arrays(cfg).items()}
    return Model(cfg, Weights(arrays, PRECISIONS[precision]))


@pytest.mark.parametrize("precision", ["float64", "float32", "bf16-hf-eager", "bf16-f32-inside"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_the_whole_model_runs_on_a_device_and_gives_the_hosts_bits(name, precision, plain_products):
    cfg = GENERATIONS[name]
    prompt, host = random_prompt(cfg), random_model(cfg, precision)
    wanted = forward(host, **prompt)
    moved = {argument: to_device(array) for argument, array in prompt.items()}
    for given in (moved, prompt):  # arrays of the host are put beside the weights
        assert np.array_equal(to_host(forward(on_device(host), **given)), wanted)


@pytest.mark.parametrize("name", GENERATIONS)
def test_padding_steps_and_taken_states_run_on_a_device(name):
    cfg = GENERATIONS[name]
    model, prompt = on_device(random_model(cfg, "float32")), random_prompt(cfg, num_suffix=0)
    ids = to_device(prompt["ids"])
    mask = np.ones_like(prompt["ids"])
    mask[0, -1] = 0
    mask = to_device(mask)
    soft = see(model.weights, cfg, to_device(prompt["pixels"][:, 0]))
    positions = inputs.counted_positions(mask, cfg)
    logits, state = prefill(model.weights, cfg, ids, soft, ids * 0, mask, positions, last_only=True)
    beams = take_state(state, to_device(np.array([1, 0, 1])))
    next_ids = to_device(np.array([[5], [6], [7]]))
    logits, _ = step(model.weights, cfg, next_ids, next_ids * 0 + 10, beams)
    assert np.all(np.isfinite(to_host(logits))) and logits.shape == (3, 1, cfg.text.vocab_size)


def test_row_88_the_device_refuses_host_arrays():
    x = to_device(np.ones(3))
    for mistake in (lambda: x + np.ones(3), lambda: np.concatenate([x, np.ones(3)]), lambda: np.asarray(x)):
        with pytest.raises(TypeError):
            mistake()


def test_the_device_refuses_what_cupy_has_not_or_takes_otherwise():
    x = to_device(np.arange(6.0))
    mistakes = (
        lambda: np.logaddexp.reduce(x), lambda: np.max(x, initial=0.0), lambda: np.searchsorted(x, 2.0),
        lambda: np.lexsort((x, x)), lambda: np.argsort(x, kind="quicksort"), lambda: np.matvec(x[None], x),
        lambda: x.flags.writeable, lambda: range(6)[to_device(np.array(1))], lambda: np.packbits(x, bitorder="big"),
        lambda: np.add(x, x, out=x), lambda: np.asarray([x], like=x),
        lambda: np.full(3, 1.0, like=x),  # NumPy hands a keyword on that CuPy does not know
    )
    for number, mistake in enumerate(mistakes):
        with pytest.raises((TypeError, AttributeError)):
            mistake()
            raise AssertionError(f"number {number} was allowed")


@pytest.mark.parametrize("dtype, precision", [
    ("float32", None), ("float64", None), ("bfloat16", None), ("float32", "bf16-hf-eager"),
])
@pytest.mark.parametrize("folder", [None, "tiny-2"])
def test_weights_go_over_once_as_they_are_stored_and_are_the_hosts(folder, dtype, precision, card):
    place = None if folder is None else GOLDEN / folder
    host = npgemma.load(place, dtype=dtype, precision=precision)
    told = []
    card.clear()
    model = npgemma.load(place, dtype=dtype, precision=precision, device="cuda", progress=lambda *at: told.append(at))
    assert card.up <= len(host.weights.arrays) + 1  # and the two ones that the card is tried with
    assert told[-1][0] == told[-1][1] and card.up_bytes == told[-1][1] + 16
    for name, array in model.weights.arrays.items():
        assert array.dtype == host.weights.arrays[name].dtype
        assert np.array_equal(to_host(array), host.weights.arrays[name]), name


WAYS = {
    "greedy": {}, "drawn": {"temperature": 0.9, "seed": 3, "num_return": 2},
    "shaped": {"temperature": 1.2, "seed": 1, "top_k": 50, "top_p": 0.9, "min_p": 0.01},
    "beams": {"num_beams": 3, "num_return": 2},
    "penalties": {"repetition_penalty": 1.3, "min_new_tokens": 4, "suppress_ids": [5], "allowed": list(range(1, 300))},
}


@pytest.mark.parametrize("way", WAYS)
def test_generation_gives_the_hosts_answers(way, plain_products):
    host = npgemma.load()
    requests = [Request(str(PICTURES[0]), "caption en"), Request(str(PICTURES[1]), "what colors?")]
    settings = {"max_new_tokens": 6} | WAYS[way]
    wanted = generate_batch(host, requests, **settings)
    found = generate_batch(on_device(host), requests, **settings)
    for one, other in zip(wanted, found, strict=True):
        for mine, theirs in zip((one, *one.others), (other, *other.others), strict=True):
            assert mine.ids == theirs.ids and mine.logprobs == theirs.logprobs


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_stored_matrices_generate_the_hosts_ids(dtype):
    wanted = npgemma.generate(npgemma.load(dtype=dtype), PICTURES[0], "caption en", max_new_tokens=6)
    found = npgemma.generate(npgemma.load(dtype=dtype, device="cuda"), PICTURES[0], "caption en", max_new_tokens=6)
    assert found.ids == wanted.ids
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-5)


def waits_of(model, length, **settings):
    """Waits and bytes brought down by a generation of so many tokens, of two prompts side by side."""
    requests = [Request(str(PICTURES[0]), "caption en"), Request(str(PICTURES[0]), "caption de")]
    TRAFFIC.clear()
    generate_batch(model, requests, max_new_tokens=length, min_new_tokens=length, **settings)
    return TRAFFIC.waits, TRAFFIC.down_bytes, TRAFFIC.up


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 9, "seed": 0}, {"num_beams": 2}])
def test_a_token_costs_one_wait_and_a_few_numbers(settings):
    model = npgemma.load(device="cuda")
    beams = settings.get("num_beams", 1)
    short, long = waits_of(model, 3, **settings), waits_of(model, 7, **settings)
    prompts = 2 if beams > 1 else 1  # beams of one prompt after those of another
    assert long[0] - short[0] == 4 * prompts
    assert long[1] - short[1] <= 4 * 400
    # What goes up: numbers to draw by, ids to be forbidden, beams to reorder; a greedy token sends nothing but those.
    assert long[2] - short[2] <= 3 * 4 * prompts


def test_an_observer_sees_every_tensor_and_changes_no_bit():
    model, seen = npgemma.load(device="cuda"), []
    plain = npgemma.generate(model, PICTURES[0], "caption en", max_new_tokens=3)
    watched = npgemma.generate(
        model, PICTURES[0], "caption en", max_new_tokens=3, observe=lambda name, x: seen.append((name, type(x)))
    )
    assert watched.ids == plain.ids and watched.logprobs == plain.logprobs
    assert {kind.__name__ for _, kind in seen} == {"DeviceArray"} and "text.logits" in dict(seen)


def test_a_trace_comes_to_the_host_a_tensor_at_a_time(tmp_path, plain_products):
    host = npgemma.load(GOLDEN / "tiny-2")
    device = on_device(host)
    question = {"ids": [3, 4, 5]}
    wanted = npgemma.trace(host, **question)
    TRAFFIC.clear()
    found = npgemma.trace(device, **question, out=tmp_path / "trace.safetensors")
    assert TRAFFIC.down <= 3 * len(wanted) + 20
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert np.array_equal(found[name], array), name


def test_an_array_of_the_host_replaces_one_of_the_device():
    model = npgemma.load(GOLDEN / "tiny-2", device="cuda")
    out = npgemma.trace(model, ids=[3, 4, 5], only="text.blocks.0.out")["text.blocks.0.out"]
    doubled = npgemma.trace(
        model, ids=[3, 4, 5], observe=lambda name, x: 2.0 * out if name == "text.blocks.0.out" else None
    )
    assert np.array_equal(doubled["text.blocks.0.out"], 2.0 * out)
    assert doubled.manifest["changed"] == ["text.blocks.0.out"]


def test_scores_are_the_hosts(plain_products):
    host = npgemma.load(GOLDEN / "tiny-2")
    answers = [[3, 7, 1], [5, 1]]
    wanted, found = (npgemma.score(model, ids=[3, 4, 5], answers=answers) for model in (host, on_device(host)))
    assert found == wanted


def test_gradients_are_the_hosts(plain_products):
    host = npgemma.load(dtype="float64")
    case = {"image": PICTURES[0], "prompt": "caption en", "answer": "a red circle"}
    only = "pixels,text.blocks.1.*,text.embedded*,connector.*,vision.positions.weight"
    wanted, found = (npgemma.gradients(model, **case, only=only) for model in (host, on_device(host)))
    assert found.loss == pytest.approx(wanted.loss, rel=1e-12)
    for mine, theirs in ((wanted.tensors, found.tensors), (wanted.weights, found.weights)):
        assert mine and list(mine) == list(theirs)
        for name, d in mine.items():
            np.testing.assert_allclose(theirs[name], d, rtol=1e-9, atol=1e-12 * np.max(np.abs(d)), err_msg=name)


def test_two_precisions_run_side_by_side_on_the_second_card():
    from npgemma.tracing.lockstep import Partner
    from npgemma.tracing.plan import ask, plan

    model = npgemma.load(GOLDEN / "tiny-2", device="cuda:1")
    assert HERE.number == 1
    planned = plan(model, ask(model, Request(ids=[3, 4, 5])), only="text.blocks.0.out,text.logits")
    with Partner(planned, "float64") as partner:
        assert partner.tensor("text.blocks.0.out").dtype == np.float64
        assert isinstance(partner.tensor("text.logits"), np.ndarray)
