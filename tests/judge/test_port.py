"""transformers in bfloat16, read through hooks by its own module names: a port that nobody here wrote."""

import numpy as np
import pytest
import random_models

from golden import GOLDEN
from npgemma import load
from npgemma.files.safetensors_file import open_safetensors
from npgemma.judge import goldens
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.plan import given
from npgemma.tracing.trace_file import read_manifest, read_tensors

FOLDER = GOLDEN / "port"


def judged(name):
    """The comparison of one of the exported ports."""
    model = load(GOLDEN / "tiny-1")
    file = open_safetensors(FOLDER / "question.safetensors")
    said = read_manifest(file)
    arrays = [np.array(said[each]) for each in ("token_types", "attention_mask", "positions")]
    question = given(model.config, said["ids"], read_tensors(file)["pixels"][None], *arrays)
    theirs = open_theirs(FOLDER / f"{name}.safetensors")
    return goldens.compare_beside(model, question, "bf16-hf-eager", theirs, {}, False)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_passes_under_its_recipe_and_every_name_is_found(attention):
    found = judged(attention)
    compared = [row for row in found.rows if row.status != "missing"]
    assert found.first is None, found.first
    assert {row.status for row in compared} == {"ok"}
    assert len(compared) == len(open_theirs(FOLDER / f"{attention}.safetensors").readers)
    assert found.port.notes == []


def test_a_wrong_gelu_in_it_is_located_and_named():
    first = judged("eager-erf").first
    assert first.name == "vision.blocks.0.mlp.hidden"
    assert first.theirs == "model.vision_tower.encoder.layers.0.mlp.activation_fn"
    assert [cause.name for cause in first.causes] == ["gelu-erf"]


def test_names_of_llama_cpps_graph_are_found_without_a_map():
    """What a dump of its graph would call the same tensors."""
    from npgemma.base.elsewhere import elsewhere
    from npgemma.judge.layout import known_names

    cfg = load(GOLDEN / "tiny-2").config
    wanted = [f"text.blocks.{n}.{name}" for n in range(3) for name in (
        "attn_norm", "attn.v", "attn.q_rot", "attn.k_rot", "attn.scores", "attn.probs", "attn.mixed", "attn_post_norm",
        "middle", "mlp_norm", "mlp.gate", "mlp.up", "mlp.hidden", "mlp.out", "mlp_post_norm", "out")]
    theirs = [elsewhere(name, cfg).graph for name in (*wanted, "text.norm", "text.logits")]
    found, notes = known_names(theirs, cfg, {})
    assert set(found) == {*wanted, "text.norm", "text.logits"}
    assert all("taken for" in note for note in notes)  # a tensor and its rotated form have one name there


# ---- big_vision: another framework (JAX), by its own names ----


def beside_big_vision(generation, wrong=""):
    """The comparison of what big_vision computed with the model of the same numbers."""
    cfg = random_models.as_big_vision_has_it(generation)
    asked = random_models.random_prompt(cfg)
    positions = np.broadcast_to(np.arange(asked["ids"].shape[1]), asked["ids"].shape)  # from 0 there
    question = given(cfg, asked["ids"], asked["pixels"], asked["token_types"], positions=positions)
    theirs = open_theirs(FOLDER / f"big-vision-{generation}{wrong}.npz")
    return goldens.compare_beside(random_models.random_model(cfg, "float32"), question, "float32", theirs, {}, False)


@pytest.mark.parametrize("generation", random_models.GENERATIONS)
def test_big_visions_names_are_found_without_a_map_and_its_tensors_pass(generation):
    found = beside_big_vision(generation)
    compared = [row for row in found.rows if row.status != "missing"]
    assert found.first is None and {row.status for row in compared} <= {"ok", "follows"}
    depth = {"vision": 2, "text": len(found.cfg.text.layer_windows)}
    names = {row.name for row in compared}
    assert {f"vision.blocks.{n}.{name}" for n in range(depth["vision"]) for name in (
        "attn_norm", "attn.q", "attn.k", "attn.v", "attn.out", "middle", "mlp_norm", "mlp.up", "mlp.out", "out",
    )} <= names
    assert {f"text.blocks.{n}.{name}" for n in range(depth["text"]) for name in (
        "attn_norm", "attn.q", "attn.k", "attn.v", "attn.out", "mlp_norm", "mlp.out", "out",
    )} <= names
    assert {"vision.patches", "vision.embedded", "vision.norm", "connector.out", "mask.full", "text.norm",
            "text.logits"} <= names  # fmt: skip


def test_a_wrong_gelu_in_big_vision_is_located_and_named():
    first = beside_big_vision("paligemma-2", "-erf").first
    assert first.name == "vision.blocks.0.mlp.hidden" and first.theirs.startswith("img/")
    assert [cause.name for cause in first.causes] == ["gelu-erf"]
