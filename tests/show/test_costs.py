"""What a model costs: against the published counts, and against a run."""

import functools
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from made_checkpoints import config_json, write_folder
from random_models import GENERATIONS, random_model

from npgemma import ops
from npgemma.base import blocks, threads
from npgemma.base.errors import InputError
from npgemma.base.tensors import schema
from npgemma.base.weights import Weights
from npgemma.config import VARIANTS
from npgemma.paligemma import Model, forward
from npgemma.show.costs import as_text, find_config, plan

# Computed from the formulas of the papers, and equal to the preset counts of keras-hub.
COUNTS = {
    "paligemma-3b-224": 2_923_335_408, "paligemma-3b-448": 2_924_220_144, "paligemma-3b-896": 2_927_759_088,
    "paligemma2-3b-224": 3_032_094_960, "paligemma2-3b-448": 3_032_979_696, "paligemma2-3b-896": 3_036_518_640,
    "paligemma2-10b-224": 9_662_409_456, "paligemma2-10b-448": 9_663_294_192, "paligemma2-10b-896": 9_666_833_136,
    "paligemma2-28b-224": 27_650_192_112, "paligemma2-28b-448": 27_651_076_848, "paligemma2-28b-896": 27_654_615_792,
}


@functools.cache
def released(name):
    """The plan of a released model, made once."""
    return plan(VARIANTS[name], name)


@pytest.mark.parametrize("name, count", list(COUNTS.items()))
def test_each_release_has_exactly_its_parameters(name, count):
    costs = released(name)
    assert costs.total == count == sum(costs.parameters.values())
    assert costs.total_with_hf_rows == count + 64 * VARIANTS[name].text.width
    assert f"{count:,}" in as_text(costs)


def test_the_table_of_variants_is_the_twelve():
    assert list(VARIANTS) == list(COUNTS)


@pytest.mark.parametrize(
    "name, bytes_float32, bytes_bfloat16",
    [
        ("paligemma-3b-224", 36_864, 18_432),
        ("paligemma2-3b-224", 212_992, 106_496),
        ("paligemma2-10b-448", 688_128, 344_064),
        ("paligemma2-28b-896", 753_664, 376_832),
    ],
)
def test_cache_a_token(name, bytes_float32, bytes_bfloat16):
    costs = released(name)
    assert costs.cache_bytes_per_token == {"float32": bytes_float32, "bfloat16": bytes_bfloat16}


@pytest.mark.parametrize("size, giga", [(224, 219), (448, 972), (896, 5455)])
def test_operations_of_the_vision_tower(size, giga):
    costs = released(f"paligemma-3b-{size}")
    assert costs.parameters["vision"] == 412_442_352 + (costs.image_tokens - 256) * 1152
    # The published figures leave out the embedding of 588 pixel values a patch.
    embedding = 2 * costs.image_tokens * 588 * 1152
    assert round((costs.flops["vision"] - embedding) / 1e9) == giga


@pytest.mark.parametrize("generation", GENERATIONS)
def test_operations_are_those_of_a_run(generation, monkeypatch):
    """Count 2 m n k of every matrix product that a prefill really makes."""
    counted = {"vision": 0, "connector": 0, "text": 0}
    place = ["text"]
    true_linear, true_product = ops.linear, blocks.product

    def linear(x, weight, bias=None):
        counted[place[0]] += 2 * (x.size // x.shape[-1]) * weight.size
        return true_linear(x, weight, bias)

    def product(a, b, *cut):
        result = true_product(a, b, *cut)
        counted[place[0]] += 2 * result.size * a.shape[-1]
        return result

    def observe(name, x):
        place[0] = {"vision.norm": "connector", "connector.out": "text"}.get(name, place[0])

    monkeypatch.setattr(ops, "linear", linear)
    monkeypatch.setattr(blocks, "product", product)
    cfg = GENERATIONS[generation]
    costs = plan(cfg, prompt_tokens=6)
    place[0] = "vision"
    forward(random_model(cfg, "float32"), *picture_and_prompt(cfg, 6), last_only=True, observe=observe)
    assert counted["vision"] == costs.flops["vision"]
    assert counted["connector"] == costs.flops["connector"]
    assert counted["text"] == costs.flops["prefill"]


def picture_and_prompt(cfg, prompt_tokens):
    ids = np.full((1, cfg.vision.num_patches + prompt_tokens), 5)
    ids[0, : cfg.vision.num_patches] = cfg.image_token_id
    R = cfg.vision.image_size
    return ids, np.zeros((1, 1, R, R, 3), np.float32)


@pytest.mark.parametrize("name, mlp_width", [("paligemma-3b-224", 8192), ("paligemma2-3b-448", 64)])
def test_peak_memory_is_that_of_a_run(name, mlp_width, monkeypatch):
    """The released widths, two blocks deep: what NumPy allocates is what was planned, be MLP or attention fullest."""
    monkeypatch.setattr(threads, "num_threads", lambda: 2)  # pieces of attention exist at the same time
    monkeypatch.setattr(threads, "blas_threads", lambda: 1)
    cfg = VARIANTS[name]
    text = replace(cfg.text, depth=2, vocab_size=300, layer_windows=cfg.text.layer_windows[:2], mlp_width=mlp_width)
    vision = replace(cfg.vision, depth=1, mlp_width=64)
    cfg = replace(cfg, text=text, vision=vision, image_token_id=299)
    weights = Weights({key: np.zeros(one.shape, np.float32) for key, one in schema(cfg).items()})
    inputs = picture_and_prompt(cfg, 16)
    tracemalloc.start()
    forward(Model(cfg, weights), *inputs, last_only=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    costs = plan(cfg)
    planned = costs.peak_bytes["float32"] - costs.weight_bytes["float32"]
    assert 0.97 * peak < planned < 1.03 * peak


def test_shapes_stand_layer_by_layer():
    costs = released("paligemma2-3b-224")
    rows = {row.name: row for row in costs.weights + costs.tensors}
    assert (rows["text.blocks.*.attn.k.weight"].shape, rows["text.blocks.*.attn.k.weight"].times) == ((1024, 2304), 26)
    assert (rows["vision.blocks.*.mlp.up"].shape, rows["vision.blocks.*.mlp.up"].times) == ((1, 256, 4304), 27)
    assert rows["text.logits"].shape == (1, 1, 257152)
    assert "text.blocks.*.attn.k.weight" in as_text(costs) and "text.blocks" not in as_text(costs, shapes=False)


def test_plan_says_the_figures_that_people_ask_for():
    text = as_text(released("paligemma-3b-224"), shapes=False)
    assert "11.7 GB float32, 5.85 GB bfloat16" in text and "256 image tokens + 16 of text" in text


def test_prompt_that_the_context_cannot_hold():
    with pytest.raises(InputError, match="prompt_tokens is 4097; want 1 to 4,096, what the context leaves"):
        plan(VARIANTS["paligemma-3b-896"], prompt_tokens=4097)
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="prompt_tokens is"):
            plan(VARIANTS["paligemma-3b-224"], prompt_tokens=wrong)


def test_config_of_a_folder_or_of_a_variant(tmp_path):
    assert find_config("paligemma2-28b-448") is VARIANTS["paligemma2-28b-448"]
    (tmp_path / "config.json").write_text(json.dumps(config_json(2)))
    assert find_config(tmp_path).text.depth == 2
    assert find_config(write_folder(tmp_path / "whole")).text.vocab_size == 41
    with pytest.raises(InputError, match="variants: paligemma-3b-224, .*paligemma2-28b-896$"):
        find_config("paligemma-9b")


def test_rows_that_hugging_face_added_already_are_not_added_again():
    cfg = VARIANTS["paligemma-3b-224"]
    padded = replace(cfg, text=replace(cfg.text, vocab_size=257216))
    costs = plan(padded)
    wanted = released("paligemma-3b-224").total_with_hf_rows
    assert costs.total == costs.total_with_hf_rows == wanted == 2_923_466_480
