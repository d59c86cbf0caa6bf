"""The table of names against the names that transformers really has and saves (key_lists.json, see tools)."""

import hashlib
import json
from pathlib import Path

import pytest
from made_checkpoints import TEXT, VISION, config_json

import golden
from npgemma.base import elsewhere
from npgemma.base.elsewhere import elsewhere as other_names
from npgemma.base.tensors import schema, tensors
from npgemma.checkpoints.hf_config import parse_config
from npgemma.config import DECODERS, VARIANTS

LISTS = json.loads((Path(__file__).parents[1] / "checkpoints" / "key_lists.json").read_text(encoding="utf-8"))

# Each list, and the layout that it proves.
SOURCES = {
    "transformers 4.49.0, modules": "A",
    "transformers 4.49.0, files": "A",
    "transformers 4.55.4, modules": "B",
    "transformers 4.55.4, files": "A",
    "transformers 5.23.0, modules": "C",
    "transformers 5.23.0, files": "A5",
}


def tiny(name):
    """The configuration of the export's tiny models, in npgemma's terms."""
    vision = VISION | {"hidden_size": 48, "intermediate_size": 40, "num_attention_heads": 3, "image_size": 28}
    text = TEXT | {"vocab_size": 300, "hidden_size": 24, "intermediate_size": 56, "head_dim": 8}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    generation = int(name[-1])
    return parse_config(
        config_json(generation, vision=vision | {"patch_size": 14}, text=text, projection_dim=24, image_token_index=299)
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["tiny-1", "tiny-2"])
def test_each_parameter_has_one_real_key_of_its_shape_and_no_key_is_left(source, name):
    cfg, layout = tiny(name), SOURCES[source]
    real = {key: tuple(map(int, shape.split())) for key, shape in LISTS[source][name].items()}
    real.pop(elsewhere.LAYOUTS[layout].head, None)
    keys = elsewhere.keys(cfg, layout)
    assert list(keys) == list(schema(cfg))
    assert set(keys.values()) == set(real) and len(set(keys.values())) == len(keys)
    # The one weight that is stored in another shape: (48, 3, 14, 14) for (48, 588).
    shapes = {ours: parameter.shape for ours, parameter in schema(cfg).items()}
    shapes["vision.patches.weight"] = (48, 3, 14, 14)
    assert {keys[ours]: shape for ours, shape in shapes.items()} == real


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name, count", list(zip(DECODERS, [603, 727, 903, 947], strict=True)))
def test_released_sizes_have_exactly_the_real_keys(source, name, count):
    layout = SOURCES[source]
    keys = set(elsewhere.keys(VARIANTS[f"{name}-224"], layout).values())
    assert len(keys) == count
    if source.endswith("modules"):
        keys.add(elsewhere.LAYOUTS[layout].head)
    assert LISTS[source][name] == {
        "count": len(keys),
        "sha256": hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest(),
    }


@pytest.mark.parametrize("name", ["tiny-1", "tiny-2"])
def test_all_layouts_together_map_back_to_one_name_each(name):
    cfg = tiny(name)
    back = elsewhere.ours_by_key(cfg)
    for layout in elsewhere.LAYOUTS:
        for ours, key in elsewhere.keys(cfg, layout).items():
            assert back[key] == ours


@pytest.mark.parametrize("layout", elsewhere.LAYOUTS)
def test_layout_is_told_from_the_keys(layout):
    cfg = tiny("tiny-2")
    assert elsewhere.layout_of(elsewhere.keys(cfg, layout).values(), cfg) == layout


def test_mixture_of_layouts_is_told():
    cfg = tiny("tiny-2")
    mixed = list(elsewhere.keys(cfg, "A").values())[:5] + list(elsewhere.keys(cfg, "C").values())[5:]
    assert elsewhere.layout_of(mixed, cfg) is None


def test_same_key_means_other_norms_in_the_two_generations():
    key = "model.language_model.layers.0.post_attention_layernorm.weight"
    assert elsewhere.ours_by_key(tiny("tiny-1"))[key] == "text.blocks.0.mlp_norm.weight"
    assert elsewhere.ours_by_key(tiny("tiny-2"))[key] == "text.blocks.0.attn_post_norm.weight"


def test_each_row_of_the_table_means_what_it_says():
    """Shapes cannot tell queries from keys, or gate from up: the words must be the same ones."""
    words = {
        "vision.blocks.1.attn.q.bias": ("self_attn.q_proj.bias", "MultiHeadDotProductAttention_0/query/bias[1]"),
        "vision.blocks.1.attn.k.weight": ("self_attn.k_proj.weight", "MultiHeadDotProductAttention_0/key/kernel[1]"),
        "vision.blocks.1.attn.v.weight": ("self_attn.v_proj.weight", "MultiHeadDotProductAttention_0/value/kernel[1]"),
        "vision.blocks.1.attn.out.weight": ("self_attn.out_proj.weight", "Attention_0/out/kernel[1]"),
        "vision.blocks.1.attn_norm.weight": ("layer_norm1.weight", "LayerNorm_0/scale[1]"),
        "vision.blocks.1.mlp_norm.bias": ("layer_norm2.bias", "LayerNorm_1/bias[1]"),
        "vision.blocks.1.mlp.up.weight": ("mlp.fc1.weight", "MlpBlock_0/Dense_0/kernel[1]"),
        "vision.blocks.1.mlp.out.weight": ("mlp.fc2.weight", "MlpBlock_0/Dense_1/kernel[1]"),
        "vision.norm.weight": ("post_layernorm.weight", "img/Transformer/encoder_norm/scale"),
        "vision.norm.bias": ("post_layernorm.bias", "img/Transformer/encoder_norm/bias"),
        "connector.out.weight": ("multi_modal_projector.linear.weight", "img/head/kernel"),
        "text.norm.weight": ("language_model.norm.weight", "llm/final_norm/scale"),
        "text.embedded.weight": ("embed_tokens.weight", "llm/embedder/input_embedding"),
        "text.blocks.1.attn_norm.weight": ("1.input_layernorm.weight", "layers/pre_attention_norm/scale[1]"),
        "text.blocks.1.attn_post_norm.weight": ("1.post_attention_layernorm.weight", "post_attention_norm/scale[1]"),
        "text.blocks.1.mlp_norm.weight": ("1.pre_feedforward_layernorm.weight", "pre_ffw_norm/scale[1]"),
        "text.blocks.1.mlp_post_norm.weight": ("1.post_feedforward_layernorm.weight", "post_ffw_norm/scale[1]"),
        "text.blocks.1.attn.q.weight": ("self_attn.q_proj.weight", "llm/layers/attn/q_einsum/w[1]"),
        "text.blocks.1.attn.k.weight": ("self_attn.k_proj.weight", "llm/layers/attn/kv_einsum/w[1,0]"),
        "text.blocks.1.attn.v.weight": ("self_attn.v_proj.weight", "llm/layers/attn/kv_einsum/w[1,1]"),
        "text.blocks.1.attn.out.weight": ("self_attn.o_proj.weight", "llm/layers/attn/attn_vec_einsum/w[1]"),
        "text.blocks.1.mlp.gate.weight": ("mlp.gate_proj.weight", "llm/layers/mlp/gating_einsum[1,0]"),
        "text.blocks.1.mlp.up.weight": ("mlp.up_proj.weight", "llm/layers/mlp/gating_einsum[1,1]"),
        "text.blocks.1.mlp.out.weight": ("mlp.down_proj.weight", "llm/layers/mlp/linear[1]"),
    }
    cfg = tiny("tiny-2")
    keys = elsewhere.keys(cfg, "C")
    for ours, (module, array) in words.items():
        assert keys[ours].endswith(module) and elsewhere.big_vision_array(ours, cfg).endswith(array), ours


def test_big_vision_places_are_one_to_one_too():
    for cfg in (tiny("tiny-1"), tiny("tiny-2")):
        places = [elsewhere.big_vision_array(ours, cfg) for ours in schema(cfg)]
        assert len(set(places)) == len(places)


# ---- tensors of a run ----

PG1, PG2 = VARIANTS["paligemma-3b-224"], VARIANTS["paligemma2-3b-224"]


def test_pre_mlp_norm_is_one_key_in_gemma_and_another_in_gemma_2():
    assert other_names("text.blocks.3.mlp_norm", PG1).modules["5.x"].endswith("layers.3.post_attention_layernorm")
    assert other_names("text.blocks.3.mlp_norm", PG2).modules["5.x"].endswith("layers.3.pre_feedforward_layernorm")
    assert other_names("text.blocks.3.middle", PG2).modules["5.x"].endswith("layers.3.pre_feedforward_layernorm")


def test_three_layouts_of_modules():
    assert other_names("vision.blocks.3.attn.q", PG1).modules == {
        "4.41-4.51": "vision_tower.vision_model.encoder.layers.3.self_attn.q_proj",
        "4.52-4.57": "model.vision_tower.vision_model.encoder.layers.3.self_attn.q_proj",
        "5.x": "model.vision_tower.encoder.layers.3.self_attn.q_proj",
    }
    assert other_names("text.logits", PG1).modules == {
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
    keys = LISTS[f"transformers {version}, modules"][name]
    cfg = golden.model(name, "float32").config
    # The lists are of models of two blocks.
    for tensor in (tensor for tensor in tensors(cfg) if ".blocks.2." not in tensor):
        module = other_names(tensor, cfg).modules[TRANSFORMERS[version]]
        assert module.endswith(WITHOUT_WEIGHTS) or any(key.startswith(f"{module}.") for key in keys), (tensor, module)
        if f"{tensor}.weight" in golden.model(name, "float32").weights.arrays:
            assert f"{module}.weight" in keys


def test_other_runtimes_name_the_weight_that_makes_a_tensor():
    scores, q = other_names("text.blocks.7.attn.scores", PG2), other_names("text.blocks.7.attn.q", PG2)
    assert (q.gguf, q.gemma_cpp, q.big_vision) == ("blk.7.attn_q", "qkv_ein_7", "llm/layers/attn/q_einsum/w[7]")
    assert (scores.gguf, scores.gemma_cpp) == ("", "")
    assert scores.which.startswith("inside")


@pytest.mark.parametrize("cfg", [PG1, PG2], ids=["paligemma-1", "paligemma-2"])
def test_every_tensor_of_the_table_is_somewhere(cfg):
    for name in tensors(cfg):
        found = other_names(name, cfg)
        assert set(found.modules) == set(elsewhere.MODULES)
        assert all(found.modules.values()) and found.which and found.big_vision, name
        assert not any("{" in module or module.endswith(".") for module in found.modules.values()), name


def test_no_two_tensors_are_the_same_of_the_same_module():
    seen = {}
    for name in tensors(PG2):
        found = other_names(name, PG2)
        place = (found.modules["5.x"], found.which)
        assert place not in seen or {name, seen[place]} == {"mask.full", "mask.sliding"}, (name, seen.get(place))
        seen[place] = name


BOTH_WAYS = {
    "layers.0.self_attn.q_proj": {"vision.blocks.0.attn.q", "text.blocks.0.attn.q"},
    "model.language_model.layers.0.self_attn.q_proj": {"text.blocks.0.attn.q"},
    "language_model.model.layers.7.mlp.down_proj.weight": {"text.blocks.7.mlp.hidden", "text.blocks.7.mlp.out"},
    "Qcur-0": {"text.blocks.0.attn.q", "text.blocks.0.attn.q_rot"},
    "kq_soft_max-3": {"text.blocks.3.attn.probs"},
    "blk.2.ffn_gate.weight": {"text.blocks.2.mlp.gate"},
    "llm/layers/attn/kv_einsum/w[1,0]": {"text.blocks.1.attn.k"},
    "gating_ein_4": {"text.blocks.4.mlp.gate", "text.blocks.4.mlp.up"},
    "result_output": {"text.logits"},
    "nobody-0": set(),
}


@pytest.mark.parametrize("theirs", BOTH_WAYS)
def test_other_programs_names_lead_back(theirs):
    assert set(elsewhere.find(theirs, PG2)) == BOTH_WAYS[theirs]


def test_every_name_elsewhere_leads_back_to_the_tensor_that_bears_it():
    for name, theirs in elsewhere.all_names(PG2).items():
        assert theirs and all(name in elsewhere.find(each, PG2) for each in theirs if "blocks.1." in name)
