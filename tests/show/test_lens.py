"""The logit lens: after the last block it is what the model itself says."""

import numpy as np
import pytest
from random_models import GENERATIONS, random_model

import npgemma
from npgemma.base.errors import InputError
from npgemma.show.lens import lens, likeliest


@pytest.mark.parametrize("generation", GENERATIONS)
def test_after_the_last_block_the_lens_is_the_model(generation):
    cfg = GENERATIONS[generation]
    model = random_model(cfg)
    kept = npgemma.trace(model, ids=[2, 5, 6])
    logits = kept["text.logits"][0, -1]
    probs = np.exp(logits) / np.exp(logits).sum()
    best = np.argsort(-probs)[:5]
    found = likeliest(model, kept[f"text.blocks.{cfg.text.depth - 1}.out"][0, -1])
    names = {cfg.image_token_id: "<image>"}
    assert [piece for piece, _ in found] == [names.get(token, f"#{token}") for token in best.tolist()]
    assert np.allclose([prob for _, prob in found], probs[best])


def test_a_line_for_each_block_that_was_kept():
    model = random_model(GENERATIONS["paligemma-2"])
    kept = npgemma.trace(model, ids=[2, 5, 6], only="text.blocks.[02].out")
    lines = lens(model, kept, count=2).splitlines()
    assert [line.split()[0] for line in lines] == ["text.blocks.0.out", "text.blocks.2.out"]


def test_a_tensor_in_a_debugger_gives_the_line_of_its_last_position():
    model = random_model(GENERATIONS["paligemma-2"])
    kept = npgemma.trace(model, ids=[2, 5, 6], only="text.blocks.0.out")
    out = kept["text.blocks.0.out"]
    line = npgemma.lens(model, out)
    assert npgemma.lens(model, kept) == f"{'text.blocks.0.out':20} {line}"
    assert npgemma.lens(model, out[0, -1]) == line != npgemma.lens(model, out, row=0)


@pytest.mark.parametrize(
    "seen, row, message",
    [
        ({}, -1, "seen: the trace holds no text.blocks.N.out"),
        (np.zeros((1, 3, 4)), -1, r"seen: came as \(1, 3, 4\); want a trace, or an array"),
        ("out", -1, "seen: came as str"),
        (np.zeros((1, 3, 10)), 3, "row: came as 3; want one of 0..2"),
    ],
)
def test_what_the_lens_cannot_read_is_said_in_a_sentence(seen, row, message):
    with pytest.raises(InputError, match=message):
        npgemma.lens(random_model(GENERATIONS["paligemma-2"]), seen, row)


def test_the_lens_is_not_part_of_the_run_that_it_looks_at():
    model = random_model(GENERATIONS["paligemma-2"])
    watched = npgemma.Model(model.config, model.weights.watched_by(lambda name, x: pytest.fail(name)))
    likeliest(watched, np.ones(10))
