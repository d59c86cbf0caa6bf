"""The files of a folder: one, or shards and the index that lists them, and each way in which they can be wrong."""

import json
import re

import numpy as np
import pytest
from made_checkpoints import config_json, file_bytes, read_index, tensors, write_folder, write_index

from npgemma.base.errors import CheckpointError, NpgemmaError, OddWarning
from npgemma.checkpoints.checkpoint import load_weights
from npgemma.checkpoints.hf_config import read_config

Q = "language_model.model.layers.1.self_attn.q_proj.weight"


def f32(*shape):
    return "F32", np.ones(shape, np.float32)


def load(folder):
    return load_weights(folder, read_config(folder))


def refusal(folder):
    """The message with which a folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    return str(caught.value)


def test_row_31_big_vision_and_pickles_are_pointed_elsewhere(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pt_224.npz").write_bytes(b"PK\3\4")
    assert "it has 'pt_224.npz': big_vision's own format is not read; convert it with" in refusal(tmp_path)
    (tmp_path / "pt_224.npz").rename(tmp_path / "pytorch_model.bin")
    assert "PyTorch pickles are refused for safety" in refusal(tmp_path)


def test_folder_without_weights_or_no_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "has neither model.safetensors nor model.safetensors.index.json" in refusal(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_weights(tmp_path / "config.json", read_config(tmp_path))


def test_two_kinds_of_weights_in_one_folder(tmp_path):
    write_folder(tmp_path, shards=2)
    write_folder(tmp_path)
    assert "has both model.safetensors and model.safetensors.index.json; remove the one" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "C:\\x", "a/b", "x\0y", "..", ""])
def test_row_32_index_names_that_are_paths(tmp_path, name):
    write_folder(tmp_path, shards=2)
    write_index(tmp_path, read_index(tmp_path) | {Q: name})
    assert f"the file name {name!r} is not a plain name" in refusal(tmp_path)


def test_row_32_index_values_that_are_no_names(tmp_path):
    write_folder(tmp_path, shards=2)
    for listed in ({Q: 3}, {}, [1], None):
        write_index(tmp_path, listed)
        assert "want an object of tensor name to file name" in refusal(tmp_path)


def test_row_32_shard_that_links_out_of_the_folder(tmp_path):
    folder = write_folder(tmp_path / "model", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert "is a link to " in refusal(folder) and "outside the model's folder; copy the file into it" in refusal(folder)


def test_row_33_missing_shard(tmp_path):
    write_folder(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "shards that are missing: 'model-00002-of-00003.safetensors'" in refusal(tmp_path)


def test_row_33_tensor_not_in_its_shard(tmp_path):
    write_folder(tmp_path, shards=2)
    listed = read_index(tmp_path)
    write_index(tmp_path, listed | {Q: next(name for name in listed.values() if name != listed[Q])})
    assert f"tensors that are not in the shard named for them: '{Q}'" in refusal(tmp_path)


def test_row_33_tensor_in_two_shards(tmp_path):
    write_folder(tmp_path, shards=2)
    first = {key: tensors()[key] for key, name in read_index(tmp_path).items() if "00001-of" in name}
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(file_bytes(first | {Q: tensors()[Q]}))
    assert f"tensors in two shards: '{Q}'" in refusal(tmp_path)


def test_row_33_tensor_not_in_the_index(tmp_path):
    write_folder(tmp_path, shards=2)
    listed = read_index(tmp_path)
    del listed[Q]
    write_index(tmp_path, listed)
    assert f"tensors that the index does not list: '{Q}'" in refusal(tmp_path)


def test_row_33_shard_not_in_the_index(tmp_path):
    write_folder(tmp_path, shards=2)
    (tmp_path / "model-00003-of-00003.safetensors").write_bytes(file_bytes({"x": f32(1)}))
    assert "files of the folder that the index does not list: 'model-00003-of-00003.safetensors'" in refusal(tmp_path)


def test_row_35_duplicate_key_in_the_index(tmp_path):
    write_folder(tmp_path, shards=2)
    text = json.dumps(read_index(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {text}, "weight_map": {text}}}')
    assert "the key 'weight_map' occurs twice" in refusal(tmp_path)


def test_row_39_links_of_a_hugging_face_cache(tmp_path):
    made = write_folder(tmp_path / "made", shards=2)
    snapshot = tmp_path / "models--x--y" / "snapshots" / "abc"
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in made.iterdir():
        path.rename(blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    assert len(load(snapshot)) == len(tensors())
    (snapshot / "config.json").unlink()
    other = tmp_path / "models--other" / "blobs" / "config"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps(config_json()))
    (snapshot / "config.json").symlink_to(other)
    with pytest.raises(NpgemmaError, match="outside the model's folder"):
        load(snapshot)


def test_row_39_link_to_another_file_of_the_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "real.safetensors")
    (tmp_path / "model.safetensors").symlink_to("real.safetensors")
    load(tmp_path)


def test_a_wrong_total_size_is_said(tmp_path):
    write_folder(tmp_path, shards=2)
    listed = {"metadata": {"total_size": 5}, "weight_map": read_index(tmp_path)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(listed))
    with pytest.warns(OddWarning, match="index.json: the index says 5 bytes of tensors, the files hold 23672; do they"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "a\ud800.safetensors"])
def test_row_32_shards_whose_name_no_file_can_have(tmp_path, name):
    write_folder(tmp_path, shards=2)
    write_index(tmp_path, read_index(tmp_path) | {Q: name})
    assert re.search("is not a plain name; want a file of this folder|half of a surrogate pair", refusal(tmp_path))


def test_row_39_a_link_that_leads_to_itself(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    assert "model.safetensors: cannot be read: Too many levels of symbolic links" in refusal(tmp_path)
