"""Files that the safetensors library reads, whole or not at all."""

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from npgemma.base.errors import OutputError
from npgemma.files.safetensors_file import open_safetensors
from npgemma.files.safetensors_writer import write_safetensors

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array([1.5], dtype=np.float64)}


def test_the_library_reads_what_is_written(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS, {"step": "3"})
    found = load_file(tmp_path / "x.safetensors")
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert file.metadata() == {"step": "3"}


def test_bfloat16_bits_stay_bfloat16(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"w": np.array([[0x3F80]], dtype=np.uint16)}, {})
    assert open_safetensors(tmp_path / "x.safetensors").tensors["w"].dtype == "BF16"


def test_nothing_is_replaced_without_force(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", ARRAYS, {})
    with pytest.raises(OutputError, match="exists already"):
        write_safetensors(tmp_path / "x.safetensors", {}, {})
    write_safetensors(tmp_path / "x.safetensors", {"c": np.zeros(2)}, {}, force=True)
    assert list(load_file(tmp_path / "x.safetensors")) == ["c"]
