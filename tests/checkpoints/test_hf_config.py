"""Reading config.json: what each transformers version writes, and what is refused before anything is allocated."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import DELIBERATE_NULL, config_json

from npgemma.base.errors import ConfigError, OddWarning
from npgemma.base.tensors import schema
from npgemma.checkpoints.hf_config import parse_config, read_config
from npgemma.config import VARIANTS

# As the first releases have it: no head_dim, no hidden_act, no layer_norm_eps, no image_size.
RELEASE_1 = {
    "model_type": "paligemma", "image_token_index": 257152, "projection_dim": 2048, "hidden_size": 2048,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "ignore_index": -100, "torch_dtype": "float32",
    "text_config": {
        "model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_attention_heads": 8,
        "num_hidden_layers": 18, "num_image_tokens": 256, "num_key_value_heads": 1, "vocab_size": 257216,
    },
    "vision_config": {
        "hidden_size": 1152, "intermediate_size": 4304, "model_type": "siglip_vision_model",
        "num_attention_heads": 16, "num_hidden_layers": 27, "num_image_tokens": 256, "patch_size": 14,
        "projection_dim": 2048, "projector_hidden_act": "gelu_fast", "vision_use_head": False,
    },
}

# What transformers 4.49.0 saved: only what differs from its own defaults.
SAVED_BY_4_49 = {
    "_vocab_size": 257152, "architectures": ["PaliGemmaForConditionalGeneration"], "hidden_size": 24,
    "image_token_index": 299, "model_type": "paligemma", "projection_dim": 24, "transformers_version": "4.49.0",
    "text_config": {
        "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid", "final_logit_softcapping": 30.0,
        "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 24, "intermediate_size": 56,
        "model_type": "gemma2", "num_attention_heads": 4, "num_hidden_layers": 3, "num_image_tokens": 4,
        "num_key_value_heads": 2, "query_pre_attn_scalar": 10, "sliding_window": 5, "vocab_size": 300,
    },
    "vision_config": {
        "hidden_size": 48, "image_size": 28, "intermediate_size": 40, "model_type": "siglip_vision_model",
        "num_attention_heads": 3, "num_hidden_layers": 2, "patch_size": 14, "projection_dim": 24,
        "vision_use_head": False,
    },
}

# The same model, saved by 5.23.0.
SAVED_BY_5_23 = {
    "architectures": ["PaliGemmaForConditionalGeneration"], "dtype": "float32", "hidden_size": 24,
    "image_token_index": 299, "model_type": "paligemma", "projection_dim": 24, "tie_word_embeddings": True,
    "transformers_version": "5.23.0", "vocab_size": 257152,
    "text_config": {
        "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2,
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 56,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "max_position_embeddings": 8192,
        "model_type": "gemma2", "num_attention_heads": 4, "num_hidden_layers": 3, "num_image_tokens": 4,
        "num_key_value_heads": 2, "pad_token_id": 0, "query_pre_attn_scalar": 10, "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "sliding_window": 5,
        "tie_word_embeddings": True, "use_bidirectional_attention": True, "use_cache": True, "vocab_size": 300,
    },
    "vision_config": {
        "attention_dropout": 0.0, "hidden_act": "gelu_pytorch_tanh", "hidden_size": 48, "image_size": 28,
        "intermediate_size": 40, "layer_norm_eps": 1e-06, "model_type": "siglip_vision_model",
        "num_attention_heads": 3, "num_channels": 3, "num_hidden_layers": 2, "patch_size": 14, "projection_dim": 24,
        "vision_use_head": False,
    },
}


def refusal(values, generation=None):
    with pytest.raises(ConfigError) as caught:
        parse_config(values, generation)
    return str(caught.value)


def test_first_release_is_the_variant_with_64_rows_more():
    cfg, variant = parse_config(RELEASE_1), VARIANTS["paligemma-3b-224"]
    assert cfg.vision == variant.vision
    assert cfg.text.vocab_size == 257216 == variant.text.vocab_size + 64
    assert {**vars(cfg.text), "vocab_size": 257152} == vars(variant.text)
    assert (cfg.image_token_id, cfg.pad_id, cfg.bos_id, cfg.eos_ids) == (257152, 0, 2, (1,))


def test_versions_4_49_and_5_23_say_the_same():
    assert parse_config(SAVED_BY_4_49) == parse_config(SAVED_BY_5_23)
    text = parse_config(SAVED_BY_5_23).text
    assert text.layer_windows == (5, None, 5)
    assert (text.attn_softcap, text.final_softcap, text.query_pre_attn_scalar) == (50.0, 30.0, 10)
    assert (text.rope_theta, text.norm_eps, text.max_positions, text.post_norms) == (10000.0, 1e-6, 8192, True)


def test_missing_keys_have_the_defaults_of_the_classes():
    bare = {"model_type": "paligemma", "projection_dim": 2304, "vision_config": {}}
    cfg = parse_config(bare | {"text_config": {"model_type": "gemma2"}})
    vision = cfg.vision
    assert (vision.width, vision.mlp_width, vision.depth, vision.num_heads) == (768, 3072, 12, 12)
    assert (vision.image_size, vision.patch_size, vision.norm_eps) == (224, 16, 1e-6)
    text = cfg.text
    assert (text.vocab_size, text.width, text.mlp_width, text.depth) == (256000, 2304, 9216, 26)
    assert (text.num_heads, text.num_kv_heads, text.head_dim) == (8, 4, 256)
    assert text.layer_windows == (4096, None) * 13
    text = parse_config(bare | {"projection_dim": 3072, "text_config": {}}).text
    assert (text.vocab_size, text.width, text.mlp_width, text.depth) == (256000, 3072, 24576, 28)
    assert (text.num_heads, text.num_kv_heads, text.head_dim, text.layer_windows) == (16, 16, 256, (None,) * 28)


def test_missing_image_token_is_that_of_the_releases():
    assert parse_config(config_json(image_token_index=None)).image_token_id == 257152


def test_image_token_under_its_other_name():
    assert parse_config(config_json(image_token_index=None, image_token_id=7)).image_token_id == 7
    assert "image_token_id is 7; want 40" in refusal(config_json(image_token_id=7))


def test_layer_types_are_obeyed():
    types = ["full_attention", "sliding_attention"]
    assert parse_config(config_json(2, text={"layer_types": types})).text.layer_windows == (None, 3)
    assert parse_config(config_json(2)).text.layer_windows == (3, None)


def test_no_window_is_no_fault_where_no_block_slides():
    text = {"layer_types": ["full_attention"] * 2, "sliding_window": DELIBERATE_NULL}
    assert parse_config(config_json(2, text=text)).text.layer_windows == (None, None)
    message = refusal(config_json(2, text={"sliding_window": DELIBERATE_NULL}))
    assert message.endswith("sliding_window is None; want a number of tokens: there are sliding blocks")


def test_soft_caps_that_are_null_are_off():
    text = {"attn_logit_softcapping": DELIBERATE_NULL, "final_logit_softcapping": DELIBERATE_NULL}
    text = parse_config(config_json(2, text=text)).text
    assert text.attn_softcap is None and text.final_softcap is None


def test_gemma_has_neither_caps_nor_windows_nor_another_scale_whatever_its_file_says():
    text = {"attn_logit_softcapping": 50.0, "sliding_window": 4, "query_pre_attn_scalar": 99}
    text = parse_config(config_json(1, text=text)).text
    assert (text.attn_softcap, text.final_softcap, text.layer_windows) == (None, None, (None, None))
    assert text.query_scale == 0.5  # head_dim is 4


def test_rotation_base_in_old_and_new_place():
    assert parse_config(config_json(text={"rope_theta": 500.0})).text.rope_theta == 500.0
    new = {"rope_theta": 600.0, "rope_type": "default"}
    assert parse_config(config_json(text={"rope_parameters": new})).text.rope_theta == 600.0
    assert "rope_type is 'linear'" in refusal(config_json(text={"rope_scaling": {"rope_type": "linear", "factor": 2}}))
    nested = {"full_attention": new, "sliding_attention": new}
    assert "one rope_theta for all blocks" in refusal(config_json(text={"rope_parameters": nested}))


def test_gelu_of_early_gemma_files_means_the_tanh_form():
    assert parse_config(config_json(1, text={"hidden_act": "gelu"})) == parse_config(config_json(1))
    assert "hidden_activation is 'gelu'" in refusal(config_json(2, text={"hidden_activation": "gelu"}))


def test_picture_side_may_be_a_pair():
    assert parse_config(config_json(vision={"image_size": [8, 8]})).vision.image_size == 8
    assert "image_size is [8, 9]" in refusal(config_json(vision={"image_size": [8, 9]}))


def test_ids_around_a_prompt_come_from_the_first_file_that_has_them():
    values = config_json(eos_token_id=5, text={"eos_token_id": [1, 7], "bos_token_id": 6})
    cfg = parse_config(values, {"eos_token_id": [3, 4]})
    assert (cfg.eos_ids, cfg.bos_id, cfg.pad_id) == ((3, 4), 6, 0)
    assert parse_config(values).eos_ids == (5,)
    assert "bos_token_id is [2]" in refusal(config_json(bos_token_id=[2]))
    assert refusal(config_json(), {"eos_token_id": 41}) == (
        "generation_config.json: eos_token_id is 41; want an id from 0 to vocab_size - 1 = 40"
    )


def test_row_30_other_families():
    message = refusal(config_json(model_type="llava"))
    assert message == "config.json: model_type='llava' is not PaliGemma; want 'paligemma'"
    assert "model_type is 'gemma3_text'" in refusal(config_json(text={"model_type": "gemma3_text"}))
    assert "model_type is 'clip_vision_model'" in refusal(config_json(vision={"model_type": "clip_vision_model"}))
    assert "model_type=None" in refusal({})


def test_row_28_quantised_config():
    assert "get the unquantised release" in refusal(config_json(quantization_config={"quant_method": "gptq"}))


@pytest.mark.parametrize(
    "section, key, value",
    [
        ("text_config", "num_hidden_layers", "18"),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "num_hidden_layers", 2.0),
        ("text_config", "num_hidden_layers", True),
        ("text_config", "vocab_size", 0),
        ("text_config", "hidden_size", [10]),
        ("text_config", "head_dim", 3),
        ("text_config", "num_key_value_heads", 4),
        ("text_config", "rms_norm_eps", 0),
        ("text_config", "rms_norm_eps", "1e-6"),
        ("text_config", "rms_norm_eps", float("inf")),
        ("text_config", "query_pre_attn_scalar", -5),
        ("text_config", "attn_logit_softcapping", 0.0),
        ("text_config", "sliding_window", 0),
        ("text_config", "layer_types", ["full_attention"]),
        ("text_config", "layer_types", ["full_attention", "chunked_attention"]),
        ("text_config", "max_position_embeddings", 0),
        ("text_config", "use_bidirectional_attention", False),
        ("text_config", "attention_bias", True),
        ("text_config", "tie_word_embeddings", False),
        ("vision_config", "hidden_act", "gelu"),
        ("vision_config", "num_channels", 1),
        ("vision_config", "image_size", 3),
        ("vision_config", "image_size", 10**6),
        ("vision_config", "num_attention_heads", 5),
        ("vision_config", "layer_norm_eps", True),
    ],
)
def test_row_36_each_field_is_checked_and_named(section, key, value):
    values = config_json(2)
    values[section][key] = value
    message = refusal(values)
    assert message.startswith(f"config.json: {section}.") and "; want " in message
    # A width that its heads do not divide is reported at the width.
    assert key in message


@pytest.mark.parametrize("key", ["text_config", "vision_config"])
@pytest.mark.parametrize("value", [None, "gemma", 3, []])
def test_row_36_sections_that_are_no_objects(key, value):
    assert "; want an object" in refusal(config_json(**{key: value}))


@pytest.mark.parametrize("value", [-1, "40", 2**40, 1.5])
def test_row_36_image_token_that_is_no_id(value):
    assert "image_token_index is" in refusal(config_json(image_token_index=value))


def test_row_36_connector_that_does_not_reach_the_decoder():
    assert refusal(config_json(projection_dim=11)) == (
        "config.json: projection_dim is 11; want text_config.hidden_size, 10"
    )


def test_untied_head_is_refused():
    assert "the output head is the embedding table" in refusal(config_json(tie_word_embeddings=False))


def test_row_38_code_named_by_a_configuration_is_ignored():
    assert parse_config(config_json(auto_map={"AutoModel": "evil.Model"})) == parse_config(config_json())


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "an empty file"),
        ("{", "not JSON at character 1"),
        ("[]", "holds a JSON list; want an object"),
        ("<html>", "an HTML page"),
        ('{"model_type": "paligemma", "model_type": "llava"}', "the key 'model_type' occurs twice"),
        ('{"text_config": {"head_dim": NaN}}', "has the number NaN; want finite numbers"),
        ('{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "want finite numbers of at most 300 digits"),
    ],
)
def test_rows_35_and_36_broken_json(tmp_path, text, fault):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "config.json")) and fault in str(caught.value)


SECTIONS = st.sampled_from([(), ("text_config",), ("vision_config",), ("text_config", "rope_parameters")])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([1, 2, 4, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_refused_or_gives_a_whole_configuration(data):
    values = config_json(2, text={"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}})
    for _ in range(data.draw(st.integers(1, 3))):
        section = values
        for name in data.draw(SECTIONS):
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict):
            keys = [*SAVED_BY_5_23, *SAVED_BY_5_23["text_config"], *SAVED_BY_5_23["vision_config"], "rope_theta"]
            section[data.draw(st.sampled_from(keys))] = data.draw(ANY_JSON)
    try:
        cfg = parse_config(values)
    except ConfigError as error:
        assert "want" in str(error) and len(str(error)) < 400
        return
    assert all(size > 0 for one in schema(cfg).values() for size in one.shape)
    assert cfg.text.query_scale > 0 and len(cfg.text.layer_windows) == cfg.text.depth


def test_folder_is_read_with_its_generation_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(RELEASE_1))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 107]}')
    assert read_config(tmp_path).eos_ids == (1, 107)


def test_folder_without_a_config(tmp_path):
    with pytest.raises(ConfigError, match="has no config.json; give the folder of a checkpoint"):
        read_config(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        read_config(tmp_path / "nothing")


def test_config_that_links_out_of_the_folder(tmp_path):
    (tmp_path / "elsewhere.json").write_text(json.dumps(RELEASE_1))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigError, match="is a link to .*elsewhere.json, outside the model's folder"):
        read_config(tmp_path / "model")


def test_a_side_that_the_patches_do_not_fill_is_said():
    with pytest.warns(OddWarning, match="image_size is 9, no multiple of patch_size, 4: the right and lower margins"):
        assert parse_config(config_json(vision={"image_size": 9})).vision.num_patches == 4
