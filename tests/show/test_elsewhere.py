"""What tensors are called elsewhere, against key lists of real models."""

import json
from pathlib import Path

import pytest

import golden
from npgemma.config import VARIANTS
from npgemma.show.elsewhere import LAYOUTS, elsewhere
from npgemma.tracing.names import tensors

KEY_LISTS = json.loads((Path(__file__).parents[1] / "checkpoints" / "key_lists.json").read_text())
PG1, PG2 = VARIANTS["paligemma-3b-224"], VARIANTS["paligemma2-3b-224"]


def test_pre_mlp_norm_is_one_key_in_gemma_and_another_in_gemma_2():
    assert elsewhere("text.blocks.3.mlp_norm", PG1).modules["5.x"].endswith("layers.3.post_attention_layernorm")
    assert elsewhere("text.blocks.3.mlp_norm", PG2).modules["5.x"].endswith("layers.3.pre_feedforward_layernorm")
    assert elsewhere("text.blocks.3.middle", PG2).modules["5.x"].endswith("layers.3.pre_feedforward_layernorm")


def test_three_layouts_of_modules():
    assert elsewhere("vision.blocks.3.attn.q", PG1).modules == {
        "4.41-4.51": "vision_tower.vision_model.encoder.layers.3.self_attn.q_proj",
        "4.52-4.57": "model.vision_tower.vision_model.encoder.layers.3.self_attn.q_proj",
        "5.x": "model.vision_tower.encoder.layers.3.self_attn.q_proj",
    }
    assert elsewhere("text.logits", PG1).modules == {
        "4.41-4.51": "language_model.lm_head",
        "4.52-4.57": "lm_head",
        "5.x": "lm_head",
    }


# Modules without weights, which a list of keys does not show.
WITHOUT_WEIGHTS = ("act_fn", "activation_fn", "rotary_emb", "(the whole model)")
TRANSFORMERS = {"4.49.0": "4.41-4.51", "4.55.4": "4.52-4.57", "5.23.0": "5.x"}


@pytest.mark.parametrize("version", TRANSFORMERS)
@pytest.mark.parametrize("name", golden.MODELS)
def test_each_module_is_one_of_transformers_own(name, version):
    keys = KEY_LISTS[f"transformers {version}, modules"][name]
    cfg = golden.model(name, "float32").config
    # The lists are of models of two blocks.
    for tensor in (tensor for tensor in tensors(cfg) if ".blocks.2." not in tensor):
        module = elsewhere(tensor, cfg).modules[TRANSFORMERS[version]]
        assert module.endswith(WITHOUT_WEIGHTS) or any(key.startswith(f"{module}.") for key in keys), (tensor, module)
        if f"{tensor}.weight" in golden.model(name, "float32").weights.arrays:
            assert f"{module}.weight" in keys


def test_other_runtimes_name_the_weight_that_makes_a_tensor():
    scores, q = elsewhere("text.blocks.7.attn.scores", PG2), elsewhere("text.blocks.7.attn.q", PG2)
    assert (q.gguf, q.gemma_cpp, q.big_vision) == ("blk.7.attn_q", "qkv_ein_7", "llm/layers/attn/q_einsum/w[7]")
    assert (scores.gguf, scores.gemma_cpp) == ("", "")
    assert scores.which.startswith("inside")


@pytest.mark.parametrize("cfg", [PG1, PG2], ids=["paligemma-1", "paligemma-2"])
def test_every_tensor_of_the_table_is_somewhere(cfg):
    for name in tensors(cfg):
        found = elsewhere(name, cfg)
        assert set(found.modules) == set(LAYOUTS)
        assert all(found.modules.values()) and found.which and found.big_vision, name
        assert not any("{" in module or module.endswith(".") for module in found.modules.values()), name


def test_no_two_tensors_are_the_same_of_the_same_module():
    seen = {}
    for name in tensors(PG2):
        found = elsewhere(name, PG2)
        place = (found.modules["5.x"], found.which)
        assert place not in seen or {name, seen[place]} == {"mask.full", "mask.sliding"}, (name, seen.get(place))
        seen[place] = name
