"""What a name's suffix says is what is written, and any other suffix is refused, by every verb that writes tensors."""

import itertools
import os

import numpy as np
import pytest
from safetensors.numpy import load_file

import npgemma
from npgemma import cli
from npgemma.base.errors import InputError, OutputError
from npgemma.files.arrays_writer import writing_arrays
from npgemma.judge.play import play
from npgemma.judge.theirs import open_theirs
from npgemma.verbs import faults

ARRAYS = {
    "text.blocks.0.attn.q": np.arange(24, dtype=np.float32).reshape(2, 3, 4).swapaxes(0, 2),
    "want/ids": np.array([[1, 2**40]]),
    "mask.full": np.array([True, False]),
    "one": np.array(7.0),
}


def read(path):
    """Whatever NumPy or safetensors themselves read there."""
    if path.is_dir():
        names = {file: str(file.relative_to(path))[: -len(".npy")] for file in path.rglob("*.npy")}
        return {name: np.load(file) for file, name in names.items()}
    return dict(np.load(path)) if path.suffix == ".npz" else load_file(path)


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_numpy_reads_what_was_written(tmp_path, name):
    with writing_arrays(tmp_path / name) as put:
        for each, array in ARRAYS.items():
            put(each, array)
    found = read(tmp_path / name)
    assert set(found) == set(ARRAYS)
    for each, array in ARRAYS.items():
        assert found[each].dtype == array.dtype and np.array_equal(found[each], array)
    assert os.listdir(tmp_path) == [name]


def test_the_same_numbers_are_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        with writing_arrays(tmp_path / name) as put:
            put("x", ARRAYS["one"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_what_was_interrupted_leaves_nothing(tmp_path, name):
    with pytest.raises(KeyboardInterrupt), writing_arrays(tmp_path / name) as put:
        put("a", ARRAYS["one"])
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_nothing_is_replaced(tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"), writing_arrays(tmp_path / name):
        pass
    assert (tmp_path / name).read_bytes() == b"mine"


WRITERS = {
    "trace": ["--only", "text.blocks.0.attn.*", "--quiet"],
    "feed": ["text.blocks.0.attn_norm"],
    "faults": ["rms-norm-without-one", "--recipe", "bf16-hf-eager"],
}


@pytest.mark.parametrize("verb", WRITERS)
def test_a_verb_writes_the_same_tensors_whatever_it_writes_them_into(tmp_path, verb, monkeypatch):
    # All of a port's tensors take long to evaluate one by one.
    monkeypatch.setattr(faults, "play", lambda *args: itertools.islice(play(*args), 12))
    for name in ("x.safetensors", "x.npz", "x"):
        assert cli.main([verb, *WRITERS[verb], "-o", str(tmp_path / name)]) == 0
    wanted = open_theirs(tmp_path / "x.safetensors")
    for path in (tmp_path / "x.npz", tmp_path / "x"):
        assert set(read(path)) == set(wanted.readers)
        if verb == "feed" and path.is_dir():
            continue  # its want/NAME is a folder, which compare does not read
        found = open_theirs(path)
        for name in wanted.readers:
            ours, theirs = wanted.read(name), found.read(name)
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name


@pytest.mark.parametrize("verb", [*WRITERS, "pack", "vectors", "finetune", "explain"])
def test_a_verb_refuses_a_suffix_that_it_does_not_write(tmp_path, capsys, verb):
    words = {"pack": [], "vectors": ["--op", "gelu"], "finetune": ["x.jsonl"], "explain": []} | WRITERS
    suffixes = (".gguf", ".npy", ".bin") if verb in WRITERS else (".safetensors", ".npz")
    for suffix in suffixes:
        assert cli.main([verb, *words[verb], "-o", str(tmp_path / f"x{suffix}")]) == 1
        assert suffix in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_in_python_a_trace_goes_into_safetensors_alone(tmp_path):
    with pytest.raises(InputError, match="want a name that ends in .safetensors"):
        npgemma.trace(npgemma.load(), None, "x", out=tmp_path / "x.npz")
