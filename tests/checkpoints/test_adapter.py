"""Adapters in peft's format: written and read, every generation's names, and what is refused by name."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import golden
from npgemma import load
from npgemma.base.errors import CheckpointError, InputError
from npgemma.checkpoints import adapter
from npgemma.learn.lora import new_factors

FOLDER = golden.GOLDEN / "tiny-2"
NAMES = ["text.blocks.1.attn.q.weight", "vision.blocks.0.mlp.up.weight"]


@pytest.fixture
def base():
    return load(FOLDER)


@pytest.fixture
def written(base, tmp_path):
    rng = np.random.default_rng(0)
    factors = {
        name: rng.normal(size=factor.shape).astype(np.float32)
        for name, factor in new_factors(base.config, NAMES, 3, rng).items()
    }
    mark = adapter.fingerprint(base.weights.arrays)
    adapter.write_adapter(tmp_path, base.config, factors, 3, 6.0, "tiny-2", mark)
    return factors


def change(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def rename(folder, old, new):
    path = folder / "adapter_model.safetensors"
    save_file({key.replace(old, new): array for key, array in load_file(path).items()}, path)


def test_what_is_written_is_read(base, written, tmp_path):
    factors, scale = adapter.read_adapter(tmp_path, base.config, base.weights.arrays)
    assert scale == 2.0 and all(np.array_equal(factors[name], written[name]) for name in written)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_load_reads_base_and_product_and_nothing_else_changes(base, written, tmp_path, dtype):
    learnt, plain = load(FOLDER, dtype, adapter=tmp_path), load(FOLDER, dtype)
    for name in plain.weights.arrays:
        expected = plain.weights[name].astype(np.float64) if name in NAMES else plain.weights[name]
        if name in NAMES:
            wide = base.weights[name].astype(np.float64)
            expected = wide + 2.0 * written[f"{name}/up"].astype(np.float64) @ written[f"{name}/down"]
        np.testing.assert_allclose(learnt.weights[name], expected, rtol=0, atol=1e-5 if name in NAMES else 0)


def test_names_are_those_of_peft_on_transformers_5(written, tmp_path):
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        f"base_model.model.model.{module}.lora_{letter}.weight"
        for module in ("language_model.layers.1.self_attn.q_proj", "vision_tower.encoder.layers.0.mlp.fc1")
        for letter in "AB"
    }


def test_names_of_older_transformers_are_read_too(base, written, tmp_path):
    rename(tmp_path, "base_model.model.model.language_model.", "base_model.model.language_model.model.")
    rename(tmp_path, "model.vision_tower.", "model.vision_tower.vision_model.")
    factors, _ = adapter.read_adapter(tmp_path, base.config, base.weights.arrays)
    assert set(factors) == set(written)


def test_rank_stabilised_scale_is_read(base, written, tmp_path):
    change(tmp_path, use_rslora=True, lora_alpha=6)
    assert adapter.read_adapter(tmp_path, base.config, base.weights.arrays)[1] == pytest.approx(6 / 3**0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; want 'LORA'"),
        ({"use_dora": True}, "use_dora is True, which is not implemented; merge it in peft"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is"),
        ({"r": 0}, "r is 0, lora_alpha 6.0; want"),
        ({"r": 4}, r"is \(3, .*this model wants \(4, "),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(base, written, tmp_path, settings, said):
    change(tmp_path, **settings)
    with pytest.raises(CheckpointError, match=said):
        adapter.read_adapter(tmp_path, base.config, base.weights.arrays)


def test_an_adapter_of_another_base_is_refused(written, tmp_path):
    other = load(golden.GOLDEN / "tiny-1")
    with pytest.raises(CheckpointError, match="was trained on another base model than this one"):
        adapter.read_adapter(tmp_path, other.config, other.weights.arrays)
    save_file(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")  # no mark
    with pytest.raises(CheckpointError, match="is it of another base"):
        adapter.read_adapter(tmp_path, other.config, other.weights.arrays)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lora_A", "lora_C", "belongs to no matrix of this model"),
        ("self_attn.q_proj", "input_layernorm", "belongs to no matrix"),
        ("layers.1.self_attn.q_proj.lora_A", "layers.2.self_attn.q_proj.lora_A", "comes without its other factor"),
    ],
)
def test_factors_that_belong_nowhere_are_refused(base, written, tmp_path, old, new, said):
    rename(tmp_path, old, new)
    with pytest.raises(CheckpointError, match=said):
        adapter.read_adapter(tmp_path, base.config, base.weights.arrays)


def test_an_adapter_without_factors_is_refused(base, written, tmp_path):
    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="holds no factors; want lora_A and lora_B of some matrices"):
        adapter.read_adapter(tmp_path, base.config, base.weights.arrays)


def test_nan_in_a_factor_is_refused(base, written, tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    arrays = load_file(path)
    next(iter(arrays.values()))[0, 0] = np.nan
    save_file(arrays, path)
    with pytest.raises(CheckpointError, match="holds NaN or infinity"):
        adapter.read_adapter(tmp_path, base.config, base.weights.arrays)


def test_emulated_precisions_take_no_adapter(written, tmp_path):
    with pytest.raises(InputError, match="adapter: cannot be merged in bf16-hf-eager"):
        load(FOLDER, precision="bf16-hf-eager", adapter=tmp_path)


def test_a_folder_that_is_none_is_refused(base, tmp_path):
    with pytest.raises(InputError, match="adapter: .*is no folder"):
        load(FOLDER, adapter=tmp_path / "nowhere")
