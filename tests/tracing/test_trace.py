"""A trace: names and numbers against the goldens, what is chosen, what is skipped, what it says of itself."""

import time

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

import golden
import npgemma
from npgemma.base.errors import InputError, WeightError
from npgemma.base.weights import Weights
from npgemma.show.breaking import layer_frame
from npgemma.tracing import plan as planning
from npgemma.tracing.plan import given, plan
from npgemma.tracing.trace import Trace, Watch, all_finite, carry_out, read, trace_forward

CFG = GENERATIONS["paligemma-2"]
IDS = [40, 40, 40, 40, 2, 5, 6, 7]


@pytest.fixture(scope="module")
def model():
    return random_model(CFG, "float32")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(3).uniform(-1, 1, size=(1, 9, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("precision", golden.PRECISIONS)
@pytest.mark.parametrize("name", golden.MODELS)
def test_a_trace_of_the_golden_configurations_equals_the_goldens_name_by_name(name, precision):
    case = golden.trace_case(name, precision)
    exact = precision in ("float64", "float32")
    judge = golden.Judge(case, inject=not exact)
    kept = trace_forward(golden.model(name, precision), **case.inputs, observe=None if exact else judge.observe)
    assert set(kept) == set(case.expected) | {"pixels", "ids", "token_types", "attention_mask", "positions"}
    if exact:
        wrong = [judge.compare(each, kept[each], expected) for each, expected in case.expected.items()]
        assert not [message for message in wrong if message]
    else:  # bfloat16 is judged operation by operation, on PyTorch's own inputs, which then are what is kept
        assert not judge.differences
        assert kept.manifest["run"] != "plain"


def test_names_come_in_order_of_execution_and_arrays_are_read_only(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels)
    names = list(kept)
    assert names[:2] == ["pixels", "vision.patches"]
    assert names[-1] == "text.logits"
    places = [names.index(f"text.blocks.{name}") for name in ("1.attn.q", "1.attn.q_rot", "1.attn.scores", "2.out")]
    assert places == sorted(places)
    for array in kept.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_tracing_changes_no_bit_of_the_result(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels)
    assert np.array_equal(kept["text.logits"], npgemma.forward(model, [IDS], pixels[None]))


def test_a_trace_of_all_of_a_tiny_model_takes_less_than_a_second():
    started = time.perf_counter()
    case = golden.trace_case("tiny-2", "float32")
    repr(trace_forward(golden.model("tiny-2", "float32"), **case.inputs))
    assert time.perf_counter() - started < 1.0


def test_only_keeps_what_fits(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.blocks.*.attn.probs, text.logits")
    assert list(kept) == [f"text.blocks.{n}.attn.probs" for n in range(3)] + ["text.logits"]


@pytest.mark.parametrize(
    "rows, places", [(-1, [7]), ([0, -1], [0, 7]), ("0:3,-1", [0, 1, 2, 7]), (slice(5, None), [5, 6, 7]), ("7,7", [7])]
)
def test_rows_keeps_positions_of_the_prompt(model, pixels, rows, places):
    whole = npgemma.trace(model, ids=IDS, pixels=pixels)
    kept = npgemma.trace(model, ids=IDS, pixels=pixels, rows=rows)
    assert list(kept) == list(whole)
    assert np.array_equal(kept["text.blocks.1.attn.scores"], whole["text.blocks.1.attn.scores"][:, :, :, places])
    assert np.array_equal(kept["text.norm"], whole["text.norm"][:, places])
    assert np.array_equal(kept["vision.norm"], whole["vision.norm"])


@pytest.mark.parametrize("rows", [8, "-9", [], "a", "1:2:3:4", ""])
def test_rows_outside_the_prompt_are_refused(model, pixels, rows):
    with pytest.raises(InputError, match="rows"):
        npgemma.trace(model, ids=IDS, pixels=pixels, rows=rows)


def test_stopping_early_really_skips_the_rest(model, pixels):
    seen = []
    question = given(CFG, [IDS], pixels[None])
    planned = plan(model, question, stop_after="text.blocks.0.attn.scores", observe=lambda name, x: seen.append(name))
    carry_out(planned, Watch(planned, lambda name, array: None))
    assert seen[-1] == "text.blocks.0.attn.scores"
    assert list(planned.tensors) == seen


def test_what_lies_behind_the_last_wanted_tensor_is_not_computed(model, pixels):
    w = model.weights
    fewer = {name: array for name, array in w.arrays.items() if not name.startswith("text.blocks.2")}
    without_last_block = npgemma.Model(CFG, Weights(fewer, w.precision))
    kept = npgemma.trace(without_last_block, ids=IDS, pixels=pixels, only="text.blocks.1.out")
    assert list(kept) == ["text.blocks.1.out"]
    with pytest.raises(WeightError):
        npgemma.trace(without_last_block, ids=IDS, pixels=pixels, only="text.logits")


def test_prompt_and_generated_tokens_are_told_apart(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels, max_new_tokens=3, only="ids,text.logits")
    answer = npgemma.generate(model, ids=IDS, pixels=pixels, max_new_tokens=3)
    assert list(kept) == ["ids", "text.logits", "step.0.ids", "step.0.text.logits", "step.1.ids", "step.1.text.logits"]
    assert (kept["step.0.ids"].item(), kept["step.1.ids"].item()) == answer.ids[:2]
    assert kept.manifest["answer"] == list(answer.ids)
    assert kept["text.logits"].shape == (1, 1, 43)
    assert int(np.argmax(kept["step.1.text.logits"])) == answer.ids[2]


def test_it_says_the_size_beforehand_to_the_byte(model, pixels):
    question = given(CFG, [IDS], pixels[None])
    for chosen in ({}, {"only": "text.*", "rows": "0,-1"}, {"stop_after": "text.embedded"}):
        planned = plan(model, question, **chosen)
        kept = trace_forward(model, [IDS], pixels[None], **chosen)
        assert planned.nbytes == sum(array.nbytes for array in kept.values())
        assert planned.shapes == {name: array.shape for name, array in kept.items()}


def test_a_trace_above_the_limit_must_be_asked_for_twice(model, pixels, monkeypatch):
    monkeypatch.setattr(planning, "LIMIT", 1000)
    with pytest.raises(InputError, match=r"would take [\d.]+ kB, more than 1 kB; choose tensors .*force"):
        npgemma.trace(model, ids=IDS, pixels=pixels)
    assert len(npgemma.trace(model, ids=IDS, pixels=pixels, force=True)) == 108


def test_a_pattern_that_fits_nothing_is_refused_before_anything_runs(model, pixels):
    with pytest.raises(InputError, match="nearest: text.logits"):
        npgemma.trace(model, ids=IDS, pixels=pixels, only="text.logit")
    with pytest.raises(InputError, match="fits none"):
        npgemma.trace(model, ids=IDS, pixels=pixels, stop_after="connector")
    with pytest.raises(InputError, match="max_new_tokens: came as -1"):
        npgemma.trace(model, ids=IDS, pixels=pixels, max_new_tokens=-1)


def test_the_first_tensor_that_is_not_finite_is_named(model, pixels):
    def spoil(name, x):
        if name == "text.blocks.1.mlp.up":
            x = x.copy()
            x[0, 3, 2] = np.nan
            return x

    kept = npgemma.trace(model, ids=IDS, pixels=pixels, observe=spoil, only="text.logits")
    assert kept.manifest["first_nonfinite"] == "text.blocks.1.mlp.up"
    assert npgemma.trace(model, ids=IDS, pixels=pixels).manifest["first_nonfinite"] == ""


def test_values_whose_sum_overflows_are_finite_all_the_same():
    large = np.full((2, 3), 3e38, dtype=np.float32)
    assert all_finite(large)
    large[1, 2] = -np.inf
    assert not all_finite(large)


def test_the_repr_is_one_line_an_array(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.blocks.0.attn.*")
    lines = repr(kept).splitlines()
    assert lines[0].startswith("Trace of 10 tensors, ")
    assert "plain" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == list(kept)
    assert "(B1 T8 N6 H8)" in lines[1]
    assert "entropy" in next(line for line in lines if "probs" in line)


def test_the_manifest_says_what_was_run(model, pixels):
    manifest = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.norm", rows=-1).manifest
    assert manifest["format"] == "npgemma.trace"
    assert manifest["run"] == "plain"
    assert manifest["ids"] == [IDS]
    assert manifest["positions"] == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert manifest["axes"] == {"text.norm": "B T D"}
    assert (manifest["precision"], manifest["convention"], manifest["rows"]) == ("float32", "hf-5", (7,))


def test_another_precision_runs_over_the_same_weights(model, pixels):
    plain = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.logits")["text.logits"]
    exact = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.logits", precision="float64")["text.logits"]
    rounded = npgemma.trace(model, ids=IDS, pixels=pixels, precision="bf16-hf-eager")
    assert exact.dtype == np.float64
    assert 0 < np.max(np.abs(plain - exact)) < 1e-4
    assert all((x.view(np.uint32) & 0xFFFF == 0).all() for x in rounded.values() if x.dtype == np.float32)
    with pytest.raises(InputError, match="want one of float64, float32"):
        npgemma.trace(model, ids=IDS, pixels=pixels, precision="fp8")


def test_a_trace_in_a_file_holds_the_same_arrays_and_the_same_manifest(model, pixels, tmp_path):
    prompt = random_prompt(CFG)
    in_memory = trace_forward(model, **prompt)
    from_file = trace_forward(model, **prompt, out=tmp_path / "a.safetensors")
    assert isinstance(from_file, Trace)
    assert list(from_file) == list(in_memory)
    assert all(np.array_equal(from_file[name], in_memory[name]) for name in in_memory)
    assert all(from_file[name].dtype == in_memory[name].dtype for name in in_memory)
    assert repr(read(tmp_path / "a.safetensors")) == repr(in_memory)
    assert from_file.manifest["ids"] == in_memory.manifest["ids"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("a.npz", "out: came as 'a.npz'; want a name that ends in .safetensors"), (7, "out: came as 7; want the path of")],
)
def test_what_is_no_name_of_a_trace_is_refused_before_anything_runs(model, out, message):
    def observe(name, x):
        raise AssertionError(f"{name} was computed")

    with pytest.raises((InputError, TypeError)) as caught:
        trace_forward(model, **random_prompt(CFG), out=out, observe=observe)
    assert message in str(caught.value)


def test_a_layers_body_stands_at_most_four_calls_below_forward(model, pixels):
    depths = {}

    def observe(name, x):
        frame, depth = layer_frame(), 0
        maker = frame.f_code.co_name
        while frame.f_code is not npgemma.forward.__code__:
            frame, depth = frame.f_back, depth + 1
        depths[maker] = max(depth, depths.get(maker, 0))

    npgemma.forward(model, [IDS], pixels[None], observe=observe)
    assert depths.pop("attend") == 5
    assert max(depths.values()) == 4
    assert depths["attention"] == 4


@pytest.mark.parametrize(
    "asked, message",
    (
        ({"only": 5}, "patterns: came as 5"),
        ({"only": 0}, "patterns: came as 0"),
        ({"stop_after": [5]}, r"patterns: came as \[5\]"),
        ({"rows": 1.5}, "rows: came as 1.5"),
        ({"rows": slice(None, None, 0)}, "rows: came as slice"),
        ({"max_new_tokens": "a"}, "max_new_tokens: came as 'a'"),
        ({"max_new_tokens": None}, "max_new_tokens: came as None"),
        ({"max_new_tokens": 10**9}, "the trained context is"),
        ({"observe": 5}, "observe: came as 5"),
        ({"out": 5}, "out: came as 5"),
    ),
)
def test_what_a_trace_cannot_be_asked_is_refused_at_once(model, pixels, asked, message):
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        npgemma.trace(model, ids=IDS, pixels=pixels, **asked)
    assert time.monotonic() - started < 5


def test_a_name_that_a_trace_does_not_hold_lists_its_neighbours(model, pixels):
    kept = npgemma.trace(model, ids=IDS, pixels=pixels, only="text.norm,text.logits")
    with pytest.raises(KeyError, match="no tensor 'text.logit' among the 2 of this trace; nearest: text.logits"):
        kept["text.logit"]
    assert "text.logit" not in kept and kept.get("text.logit") is None
