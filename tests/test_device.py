import numpy as np
import pytest
from fake_device import to_device, to_host
from random_models import GENERATIONS, random_arrays, random_prompt

from npgemma import forward
from npgemma.base import inputs, products
from npgemma.base.cache import take_state
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.paligemma import Model, prefill, see, step


def model_on_device(cfg, precision):
    arrays = {name: to_device(x.astype(PRECISIONS[precision].dtype)) for name, x in random_arrays(cfg).items()}
    return Model(cfg, Weights(arrays, PRECISIONS[precision]))


@pytest.mark.parametrize("precision", ["float32", "bf16-hf-eager", "bf16-f32-inside"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_the_whole_model_runs_on_a_device_and_gives_the_hosts_bits(name, precision, monkeypatch):
    monkeypatch.setattr(products, "FEW_ROWS", 0)  # The host alone multiplies few rows by dot products.
    cfg = GENERATIONS[name]
    prompt = random_prompt(cfg)
    host = Model(cfg, Weights(random_arrays(cfg), PRECISIONS[precision]))
    device = model_on_device(cfg, precision)
    on_device = {argument: to_device(array) for argument, array in prompt.items()}
    assert np.array_equal(to_host(forward(device, **on_device)), forward(host, **prompt))


@pytest.mark.parametrize("name", GENERATIONS)
def test_padding_steps_and_taken_states_run_on_a_device(name):
    cfg = GENERATIONS[name]
    model, prompt = model_on_device(cfg, "float32"), random_prompt(cfg, num_suffix=0)
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
