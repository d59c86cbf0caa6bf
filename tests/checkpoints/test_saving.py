"""A model that was written loads again with the same numbers, and transformers' names."""

import numpy as np
from safetensors.numpy import load_file

import golden
from npgemma import load
from npgemma.checkpoints.saving import write_model

FOLDER = golden.GOLDEN / "tiny-2"


def test_a_written_model_loads_with_the_same_numbers(tmp_path):
    model = load(FOLDER)
    arrays = dict(model.weights.arrays)
    arrays["text.norm.weight"] = arrays["text.norm.weight"] + np.float32(1e-4)  # no bfloat16 number any more
    write_model(tmp_path, FOLDER, model.config, arrays)
    again = load(tmp_path)
    assert again.config == model.config
    assert all(np.array_equal(again.weights[name], array) for name, array in arrays.items())


def test_what_stayed_stored_stays_bfloat16(tmp_path):
    model = load(FOLDER, "bfloat16")
    write_model(tmp_path, FOLDER, model.config, model.weights.arrays)
    again = load(tmp_path, "bfloat16")
    name = "text.blocks.0.attn.q.weight"
    assert again.weights.arrays[name].dtype == np.uint16
    assert np.array_equal(again.weights.arrays[name], model.weights.arrays[name])


def test_keys_and_shapes_are_those_that_transformers_saves(tmp_path):
    model = load(FOLDER)
    write_model(tmp_path, FOLDER, model.config, model.weights.arrays)
    file = golden.read("tiny-2/model")
    ours = load_file(tmp_path / "model.safetensors")
    assert {key: array.shape for key, array in ours.items()} == {key: array.shape for key, array in file.items()}


def test_the_box_is_copied_with_its_tokenizer(tmp_path):
    from npgemma.checkpoints.loading import TINY

    model = load()
    write_model(tmp_path, TINY, model.config, model.weights.arrays)
    assert load(tmp_path).tokenizer.encode("what colors?") == model.tokenizer.encode("what colors?")
