"""Further tokens of a port: the model's own steps pass, and each known fault of a step is caught, located and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import random_models

from npgemma import trace
from npgemma.judge import faults_steps, goldens
from npgemma.judge.fault_list import FAULTS
from npgemma.judge.play import play
from npgemma.judge.theirs import Theirs
from npgemma.tracing.plan import given

RECIPES = ("float32", "bf16-hf-eager")


def one_block(cfg):
    """The model with one block a tower: what a step remembers is the same in each."""
    text = replace(cfg.text, depth=1, layer_windows=cfg.text.layer_windows[:1])
    return replace(cfg, vision=replace(cfg.vision, depth=1), text=text)


@pytest.fixture(scope="module", params=random_models.GENERATIONS)
def asked(request):
    """A model and its question: one row, a picture and a prompt."""
    cfg = one_block(random_models.GENERATIONS[request.param])
    prompt = random_models.random_prompt(cfg, num_rows=1, num_suffix=0)
    model = random_models.random_model(cfg, "float32")
    return model, given(cfg, prompt["ids"], prompt["pixels"])


def compared(asked, tensors, recipe):
    """The comparison of a port's tensors with the model."""
    theirs = Theirs(Path("port"), {name: lambda array=array: array for name, array in tensors.items()})
    return goldens.compare_beside(*asked, recipe, theirs, {}, False)


def played(asked, recipe, fault=None):
    """A port's tensors of a prompt and two steps."""
    model, question = asked
    return dict(play(model, recipe, goldens.given_of(question, model.config), fault, 2))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_models_own_steps_pass_and_all_are_judged(asked, recipe):
    model, question = asked
    tensors = trace(model, ids=question.ids[0].tolist(), pixels=question.pixels[0], max_new_tokens=4, precision=recipe)
    found = compared(asked, tensors, recipe)
    assert found.first is None
    assert {row.status for row in found.rows} == {"ok"} and len(found.rows) == len(tensors)
    assert found.rows[-1].name == "step.2.text.logits" and "share" in found.rows[-1].single


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_port_that_is_played_without_a_fault_passes(asked, recipe):
    found = compared(asked, played(asked, recipe), recipe)
    assert found.first is None and {row.status for row in found.rows} <= {"ok", "follows"}


# Without padding, or with it on the left alone, nothing shows these; and PaliGemma 1 has no window.
INVISIBLE = {"step-position-counts-padding", "step-sees-padding"}
FIRST_AT = {"text.cos": ("step-one", "step-position"), "mask.full": ("step-sees", "step-does"),
            "mask.sliding": ("window",), "text.blocks.0.attn.scores": ("cache",)}  # fmt: skip


def test_faults_of_steps_are_caught_located_and_named(asked):
    wrong, named = [], 0
    for fault in faults_steps.FAULTS:
        if fault.name in INVISIBLE or fault.name.startswith("window") and not asked[0].config.text.sliding_window:
            continue
        first = compared(asked, played(asked, "float32", fault), "float32").first
        place = next(place for place, names in FIRST_AT.items() if fault.name.startswith(names))
        causes = [] if first is None else [cause.name for cause in first.causes]
        named += fault.name in causes
        if first is None or first.name not in [f"step.{n}.{place}" for n in range(3)] or fault.name not in causes:
            wrong.append((fault.name, first and first.name, causes))
        assert len(causes) <= 6, causes  # one row of a mask without padding looks alike under several
    print(f"\n{named} faults of steps named, {len(wrong)} not: {wrong}")
    assert wrong == []


def test_what_padding_hides_is_named_where_there_is_padding():
    cfg = one_block(random_models.PALIGEMMA_2)
    prompt = random_models.random_prompt(cfg, num_rows=2, num_suffix=0)
    mask = np.ones_like(prompt["ids"])
    mask[1, -2:] = 0  # the second prompt is shorter
    asked = random_models.random_model(cfg, "float32"), given(cfg, prompt["ids"], prompt["pixels"], attention_mask=mask)
    assert compared(asked, played(asked, "float32"), "float32").first is None
    for name in INVISIBLE:
        first = compared(asked, played(asked, "float32", FAULTS[name]), "float32").first
        assert name in [cause.name for cause in first.causes]


def test_positions_that_a_step_was_given_wrongly_are_told(asked):
    tensors = played(asked, "float32")
    tensors["step.1.positions"] = tensors["step.1.positions"] - 1
    first = compared(asked, tensors, "float32").first
    assert first.name == "step.1.positions"
    assert [cause.name for cause in first.causes] == ["positions-moved"]


def test_a_step_without_its_ids_is_left_out_and_said(asked):
    tensors = played(asked, "float32")
    del tensors["step.1.ids"]
    found = compared(asked, tensors, "float32")
    assert not any(row.name.startswith(("step.1", "step.2")) for row in found.rows)
    assert "step.1.ids is not there" in " ".join(found.port.notes)
