"""Too little memory is said before anything is loaded."""

import math

import pytest
from made_checkpoints import tensors, write_folder

from npgemma.errors import CheckpointError, SlowWarning
from npgemma.files import memory
from npgemma.files.checkpoint import load_weights
from npgemma.files.hf_config import read_config
from npgemma.weights import schema


def load(folder, dtype):
    return load_weights(folder, read_config(folder), dtype)


def test_row_42_too_little_memory_is_told_before_loading(tmp_path, monkeypatch):
    write_folder(tmp_path, dtype="BF16")
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, "float32")
    total = sum(array.size for _, array in tensors().values()) * 4
    message = str(caught.value)
    assert f"float32 needs {total / 1e9:.3g} GB of memory, 1e-05 GB are available; --dtype bfloat16 uses" in message


def test_row_42_no_mode_is_advised_that_does_not_fit_either(tmp_path, monkeypatch):
    write_folder(tmp_path, dtype="F16")
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(CheckpointError, match=f"{dtype} needs .* no mode fits"):
            load(tmp_path, dtype)


def test_what_will_be_read_from_disk_for_each_token_is_said(tmp_path, monkeypatch, recwarn):
    write_folder(tmp_path, dtype="BF16")
    parameters = schema(read_config(tmp_path)).values()
    matrices = sum(math.prod(parameter.shape) for parameter in parameters if parameter.matrix)
    others = sum(math.prod(parameter.shape) for parameter in parameters if not parameter.matrix)
    needed = 2 * matrices + 4 * others  # bytes: matrices as stored, all else widened
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    load(tmp_path, "bfloat16")
    assert not recwarn.list
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.warns(SlowWarning, match="of matrices stay in the file, .* every token reads from disk") as caught:
        load(tmp_path, "bfloat16")
    assert f"{2 * matrices / 1e9:.3g} GB of matrices" in str(caught[0].message)


def test_memory_is_not_guessed_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    load(write_folder(tmp_path), "float32")
