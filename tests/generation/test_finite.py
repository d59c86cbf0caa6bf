"""NaN and infinities: no answer is chosen from them; where they began is said, and the command that shows it."""

import re
from dataclasses import replace

import numpy as np
import pytest
from generation_models import wordy_model
from random_models import GENERATIONS, random_model

import npgemma
from npgemma import cli
from npgemma.base.errors import NonfiniteError
from npgemma.base.weights import Weights
from npgemma.verbs import options

IDS = [2, 5, 6, 7]


def broken(model, name, value):
    """The same model with one weight full of a number: 3e38 is finite in bfloat16, and so passes loading."""
    arrays = dict(model.weights.arrays)
    arrays[name] = np.full_like(arrays[name], value)
    return replace(model, weights=Weights(arrays, model.weights.precision))


@pytest.fixture(scope="module", params=GENERATIONS)
def model(request):
    return random_model(GENERATIONS[request.param], "float32")


WAYS = (
    {"max_new_tokens": 3},
    {"max_new_tokens": 3, "temperature": 1.0, "seed": 1, "num_return": 2},
    {"max_new_tokens": 3, "num_beams": 2},
    {"max_new_tokens": 3, "top_p": 0.5},
)


@pytest.mark.parametrize("settings", WAYS, ids=lambda settings: " ".join(settings))
@pytest.mark.parametrize("value", [3e38, np.nan, np.inf])
def test_row_20_generate_says_at_which_tensor_it_began(model, settings, value):
    wrong = broken(model, "text.blocks.1.attn_norm.weight", value)
    message = "text.blocks.1.attn_norm holds NaN.*'npgemma trace ... --stop-after text.blocks.1.attn_norm' shows"
    if value == 3e38:  # 1 + 3e38 is finite; what it multiplies may be too, and the products after it are not
        message = r"text.blocks.1.attn\w*(\.\w+)? holds NaN or infinities.*--stop-after text.blocks.1.attn"
    with pytest.raises(NonfiniteError, match=message):
        npgemma.generate(wrong, ids=IDS, **settings)


def test_row_20_score_says_so_too(model):
    wrong = broken(model, "text.norm.weight", np.nan)
    with pytest.raises(NonfiniteError, match="text.norm holds NaN or infinities"):
        npgemma.score(wrong, ids=IDS, answers=[[5, 6], [7]])


def test_what_begins_in_a_step_is_named_as_a_trace_names_it(model):
    table = model.weights.arrays["text.embedded.weight"].copy()
    table[9, 0] = 1.2e38  # finite as a logit, infinite once it is scaled by the root of D = 10
    wrong = replace(model, weights=Weights(model.weights.arrays | {"text.embedded.weight": table}))
    assert npgemma.generate(wrong, ids=IDS, max_new_tokens=1, allowed=[9]).ids == (9,)
    message = "step.0.text.embedded holds NaN.*--stop-after step.0.text.embedded --max-tokens 2'"
    for settings in ({}, {"num_beams": 2, "num_return": 1}):
        with pytest.raises(NonfiniteError, match=message):
            npgemma.generate(wrong, ids=IDS, max_new_tokens=4, allowed=[9, 10], suppress_ids=[10], **settings)


def test_a_run_under_an_observer_is_not_repeated(model):
    calls = []

    def spoil(name, x):
        calls.append(name)
        return np.full_like(x, np.inf) if name == "text.logits" else None

    with pytest.raises(NonfiniteError, match="text.logits holds NaN or infinities"):
        npgemma.generate(model, ids=IDS, max_new_tokens=4, observe=spoil)
    assert calls.count("text.logits") == 1


def test_a_trace_keeps_what_is_not_finite_and_names_the_first(model):
    wrong = broken(model, "text.blocks.1.mlp_norm.weight", np.nan)
    kept = npgemma.trace(wrong, ids=IDS, max_new_tokens=2)
    assert kept.manifest["first_nonfinite"] == "text.blocks.1.mlp_norm"
    assert np.isnan(kept["text.logits"]).all()


def test_the_command_ends_with_2_and_its_advice_can_be_followed(monkeypatch, capsys):
    wrong = broken(wordy_model(), "text.blocks.0.attn_norm.weight", np.nan)
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: wrong)
    for words in (["generate", "--no-image", "cat"], ["score", "--no-image", "cat", "dog"]):
        assert cli.main([*words, "--model", "some"]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        [advice] = re.findall(r"--stop-after \S+(?=')", err)
        assert cli.main(["trace", "--no-image", "cat", "--model", "some", *advice.split()]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("text.blocks.0.attn_norm") and not re.search(r"nan 0\b", last)
