"""Other tensors in place of computed ones: what follows follows from them; what cannot stand there is refused."""

import numpy as np
import pytest
from random_models import GENERATIONS, random_model
from safetensors.numpy import save_file

import npgemma
from npgemma.base.errors import InputError
from npgemma.base.tensors import tensors
from npgemma.tracing.replacing import check_replacements, read_replacements, replace_with

CFG = GENERATIONS["paligemma-2"]
IDS = [[2, 5, 6, 7]]
NAME = "text.blocks.1.attn.out"


@pytest.fixture(scope="module")
def model():
    return random_model(CFG, "float32")


def test_what_follows_follows_from_the_replacement(model):
    plain = npgemma.trace(model, ids=IDS[0])
    silenced = np.zeros_like(plain[NAME])
    kept = npgemma.trace(model, ids=IDS[0], observe=replace_with({NAME: silenced}))
    assert np.array_equal(kept[NAME], silenced)
    assert np.array_equal(kept["text.blocks.1.attn.mixed"], plain["text.blocks.1.attn.mixed"])
    # The norm of zeros is zero, so that the block's first branch adds nothing.
    assert np.array_equal(kept["text.blocks.1.middle"], plain["text.blocks.0.out"])
    assert kept.manifest["changed"] == [NAME]


def test_a_computed_tensor_in_its_own_place_changes_nothing(model):
    plain = npgemma.trace(model, ids=IDS[0])
    again = npgemma.trace(model, ids=IDS[0], observe=replace_with({name: plain[name] for name in plain}))
    assert all(np.array_equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("wrong", [np.zeros((1, 4, 9), np.float32), np.zeros((1, 4, 10)), [0.0]])
def test_another_shape_or_dtype_names_both(model, wrong):
    with pytest.raises(InputError, match=rf"{NAME}: the replacement is .*; want \(1, 4, 10\) float32"):
        npgemma.trace(model, ids=IDS[0], observe=replace_with({NAME: wrong}))
    with pytest.raises(InputError, match=rf"{NAME}: the replacement is .*; want \(1, 4, 10\) float32"):
        npgemma.forward(model, IDS, observe=replace_with({NAME: wrong}))


def test_files_are_held_against_the_plan_before_anything_runs(tmp_path):
    save_file({NAME: np.zeros((1, 4, 9), np.float32)}, tmp_path / "theirs.safetensors")
    arrays = read_replacements([f"{NAME}={tmp_path / 'theirs.safetensors'}"])
    both = rf"{NAME}: the replacement is \(1, 4, 9\) float32; want \(B1 T4 D10\) float32"
    with pytest.raises(InputError, match=both):
        check_replacements(arrays, tensors(CFG, pictures=0, length=4), np.float32)
    with pytest.raises(InputError, match="text.blocks are 0 to 2"):
        check_replacements({"text.blocks.9.attn.out": arrays[NAME]}, tensors(CFG, pictures=0, length=4), np.float32)


def test_a_files_only_tensor_may_have_any_name(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(1, 4, 10)
    save_file({"hidden_states": array}, tmp_path / "one.safetensors")
    assert np.array_equal(read_replacements([f"{NAME}={tmp_path / 'one.safetensors'}"])[NAME], array)
    save_file({"a": array, "b": array}, tmp_path / "two.safetensors")
    with pytest.raises(InputError, match=f"holds no tensor '{NAME}' among 2; it begins with 'a', 'b'"):
        read_replacements([f"{NAME}={tmp_path / 'two.safetensors'}"])
    with pytest.raises(InputError, match="want NAME=FILE.safetensors"):
        read_replacements([NAME])


def test_bfloat16_of_another_runtime_comes_as_float32(tmp_path):
    # 1.0, -2.0 and 0.5 as bfloat16 bits, in a file made by hand.
    header = b'{"x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}'
    bits = np.array([0x3F80, 0xC000, 0x3F00], dtype="<u2").tobytes()
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    found = read_replacements([f"text.norm={tmp_path / 'b.safetensors'}"])["text.norm"]
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, -2.0, 0.5]
