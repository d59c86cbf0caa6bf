"""The table of names against the names that transformers really has and saves (key_lists.json, see tools)."""

import hashlib
import json
from pathlib import Path

import pytest
from made_checkpoints import TEXT, VISION, config_json

from npgemma.base.weights import schema
from npgemma.checkpoints import key_map
from npgemma.checkpoints.hf_config import parse_config
from npgemma.config import DECODERS, VARIANTS

LISTS = json.loads((Path(__file__).parent / "key_lists.json").read_text(encoding="utf-8"))

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
    real.pop(key_map.LAYOUTS[layout].head, None)
    keys = key_map.keys(cfg, layout)
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
    keys = set(key_map.keys(VARIANTS[f"{name}-224"], layout).values())
    assert len(keys) == count
    if source.endswith("modules"):
        keys.add(key_map.LAYOUTS[layout].head)
    assert LISTS[source][name] == {
        "count": len(keys),
        "sha256": hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest(),
    }


@pytest.mark.parametrize("name", ["tiny-1", "tiny-2"])
def test_all_layouts_together_map_back_to_one_name_each(name):
    cfg = tiny(name)
    back = key_map.ours_by_key(cfg)
    for layout in key_map.LAYOUTS:
        for ours, key in key_map.keys(cfg, layout).items():
            assert back[key] == ours


@pytest.mark.parametrize("layout", key_map.LAYOUTS)
def test_layout_is_told_from_the_keys(layout):
    cfg = tiny("tiny-2")
    assert key_map.layout_of(key_map.keys(cfg, layout).values(), cfg) == layout


def test_mixture_of_layouts_is_told():
    cfg = tiny("tiny-2")
    mixed = list(key_map.keys(cfg, "A").values())[:5] + list(key_map.keys(cfg, "C").values())[5:]
    assert key_map.layout_of(mixed, cfg) is None


def test_same_key_means_other_norms_in_the_two_generations():
    key = "model.language_model.layers.0.post_attention_layernorm.weight"
    assert key_map.ours_by_key(tiny("tiny-1"))[key] == "text.blocks.0.mlp_norm.weight"
    assert key_map.ours_by_key(tiny("tiny-2"))[key] == "text.blocks.0.attn_post_norm.weight"


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
    keys, names = key_map.keys(cfg, "C"), key_map.names(cfg)
    for ours, (module, array) in words.items():
        assert keys[ours].endswith(module) and names[ours].big_vision.endswith(array), ours


def test_big_vision_places_are_one_to_one_too():
    for cfg in (tiny("tiny-1"), tiny("tiny-2")):
        places = [other.big_vision for other in key_map.names(cfg).values()]
        assert len(set(places)) == len(places)
