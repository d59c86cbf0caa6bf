"""Fine-tuning: it learns, goes on after a kill to the same bits, leaves frozen weights alone, says where it broke."""

import dataclasses

import numpy as np
import pytest
from lessons import short_model, write_lessons
from safetensors.numpy import save_file

from npgemma.base.errors import CheckpointError, InputError, OutputError
from npgemma.files.safetensors_file import open_safetensors
from npgemma.learn import finetune as module
from npgemma.learn.data import read_examples
from npgemma.learn.finetune import STATE, Course, begin, finetune, judge, now, resume, take_step

SHORT = Course(steps=4, batch=2, micro=2, rate=1e-3, warm_up=2, lora=2, every=1, save_every=2)


@pytest.fixture(scope="module")
def model():
    return short_model()


@pytest.fixture(scope="module")
def examples(model, tmp_path_factory):
    return read_examples(write_lessons(tmp_path_factory.mktemp("lessons")), model)


def quiet(part):
    """Hears how far a step is."""


def arrays(path):
    file = open_safetensors(path)
    return {name: np.array(file.array(name)) for name in file.tensors}


def test_it_learns_by_heart(model, examples, tmp_path):
    losses = []
    course = dataclasses.replace(SHORT, steps=25, batch=4, micro=4, rate=2e-2, lora=4, save_every=25)
    assert finetune(model, examples[:4], examples[:4], course, tmp_path, losses.append)
    assert losses[-1].loss < 0.1 * losses[0].loss
    assert losses[-1].held_out_right == 1.0 and losses[-1].held_out_loss < 0.2


@pytest.mark.parametrize("lora", [2, 0])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(model, examples, tmp_path, lora):
    course = dataclasses.replace(SHORT, lora=lora, on=("text.blocks.*.attn.*",))
    finetune(model, examples, [], course, tmp_path / "whole")
    stops = iter([False, False, True])
    assert not finetune(model, examples, [], course, tmp_path / "parts", stop=lambda: next(stops))
    assert finetune(model, examples, [], course, tmp_path / "parts")
    whole, parts = arrays(tmp_path / "whole" / STATE), arrays(tmp_path / "parts" / STATE)
    assert set(whole) == set(parts) and all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_kill_in_the_middle_of_a_step_loses_the_steps_since_the_last_state_only(
    model, examples, tmp_path, monkeypatch
):
    finetune(model, examples, [], SHORT, tmp_path / "whole")
    right, calls = module.teach, []

    def killed(*args, **more):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return right(*args, **more)

    monkeypatch.setattr(module, "teach", killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(model, examples, [], SHORT, tmp_path / "parts")
    assert open_safetensors(tmp_path / "parts" / STATE).metadata["step"] == "2"
    assert finetune(model, examples, [], SHORT, tmp_path / "parts")
    whole, parts = arrays(tmp_path / "whole" / STATE), arrays(tmp_path / "parts" / STATE)
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_frozen_weights_stay_to_the_bit_and_the_others_move(model, examples, tmp_path):
    course = dataclasses.replace(SHORT, lora=0, steps=1, freeze=("vision.*", "text.embedded.*"))
    learner = begin(model, course)
    take_step(model, learner, examples[:2], course, tmp_path, quiet)
    learnt = now(model, learner, course).weights.arrays
    for name, array in model.weights.arrays.items():
        same = np.array_equal(np.asarray(learnt[name]), np.asarray(array))
        assert same == name.startswith(("vision.", "text.embedded")), name


@pytest.mark.parametrize("lora", [2, 0])
def test_micro_batches_make_the_step_of_the_whole_batch(model, examples, tmp_path, lora):
    steps = []
    for micro in (1, 5):
        course = dataclasses.replace(SHORT, lora=lora, micro=micro, freeze=("vision.*",) if not lora else ())
        steps.append(take_step(model, begin(model, course), examples, course, tmp_path, quiet))
    assert steps[0] == pytest.approx(steps[1], rel=1e-5)


def test_the_state_of_another_run_is_refused(model, examples, tmp_path):
    finetune(model, examples, [], dataclasses.replace(SHORT, steps=1), tmp_path)
    with pytest.raises(InputError, match="is the state of a run with other data or settings"):
        finetune(model, examples, [], dataclasses.replace(SHORT, steps=1, rate=2e-3), tmp_path)
    with pytest.raises(InputError, match="other data"):
        finetune(model, examples[1:], [], dataclasses.replace(SHORT, steps=1), tmp_path)


HARM = {
    "what no run leaves": ({"weight/x": np.zeros(2, np.float32)}, {}, "does not hold what this run trains"),
    "memory of nothing": ({"memory/x/mean": np.zeros(2, np.float32)}, {}, "'memory/x/mean' is nothing that a run"),
    "another kind": ({"other/x": np.zeros(2, np.float32)}, {}, "'other/x' is nothing that a run"),
    "another shape": ({"memory/{}/mean": np.zeros(2, np.float32)}, {}, r"is \(2,\) float32; want"),
    "another type": ({"weight/{}": np.float16}, {}, "float16; want"),
    "NaN": ({"weight/{}": np.nan}, {}, "holds NaN, infinity, or a square below zero"),
    "a square below zero": ({"memory/{}/square": -1.0}, {}, "holds NaN, infinity, or a square below zero"),
    "no step": ({}, {"step": ""}, "its step is ''"),
    "a step that is none": ({}, {"step": "-1"}, "its step is '-1'"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_state_is_refused(model, tmp_path, harm):
    fresh = begin(model, SHORT)
    first = next(iter(fresh.weights))
    changes, said, message = HARM[harm]
    held = {f"weight/{name}": array for name, array in fresh.weights.items()}
    for name, change in changes.items():
        like = fresh.weights[first]
        array = change if isinstance(change, np.ndarray) else like.astype(change) if change is np.float16 else change
        held[name.format(first)] = array if isinstance(array, np.ndarray) else np.full_like(like, array)
    save_file(held, tmp_path / STATE, {"step": "3", "run": "mark"} | said)
    with pytest.raises(CheckpointError, match=message):
        resume(tmp_path / STATE, fresh, "mark", np.asarray)


def test_a_loss_that_is_no_number_names_step_and_tensor_and_the_last_state_stays(model, examples, tmp_path):
    stops = iter([False, True])
    finetune(model, examples, [], SHORT, tmp_path, stop=lambda: next(stops))
    before = (tmp_path / STATE).read_bytes()
    file = open_safetensors(tmp_path / STATE)
    learner = resume(tmp_path / STATE, begin(model, SHORT), file.metadata["run"], np.asarray)
    learner.weights["text.blocks.1.mlp.gate.weight/up"][:] = np.inf
    with pytest.raises(InputError, match="step 3: the loss is nan, the first tensor .* is text.blocks.1.mlp.gate; the "
                                         "state in .* is that of an earlier step; lower the learning rate"):
        with np.errstate(invalid="ignore"):
            take_step(model, learner, examples[:2], SHORT, tmp_path, quiet)
    assert (tmp_path / STATE).read_bytes() == before


def test_a_rate_that_makes_weights_infinite_writes_nothing(model, examples, tmp_path):
    course = dataclasses.replace(SHORT, rate=1e300, steps=1, warm_up=0)
    with pytest.raises(InputError, match="step 1: text.* became NaN or infinite; nothing was saved yet; lower the"):
        finetune(model, examples, [], course, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_the_last_state_stays(model, examples, tmp_path, monkeypatch):
    from npgemma.files import writer

    finetune(model, examples, [], dataclasses.replace(SHORT, steps=2), tmp_path)
    before = (tmp_path / STATE).read_bytes()
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
    learner = begin(model, SHORT)
    with pytest.raises(OutputError, match="state.safetensors: needs .*, 1 kB are free there"):
        module.save(tmp_path / STATE, learner, "mark")
    assert (tmp_path / STATE).read_bytes() == before


def test_judging_equals_generating(model, examples):
    """An answer is right exactly where greedy generation gives it."""
    from npgemma import generate

    course, learner = SHORT, begin(model, SHORT)
    right = [
        generate(model, each.image, each.prefix, max_new_tokens=30).text == each.suffix for each in examples[1:4]
    ]
    assert judge(model, learner, examples[1:4], course)["held_out_right"] == pytest.approx(np.mean(right))


def test_a_pattern_that_fits_no_weight_is_refused(model):
    with pytest.raises(InputError, match="'text.blokcs.\\*' fits none of"):
        begin(model, dataclasses.replace(SHORT, lora=0, on=("text.blokcs.*",)))
