"""The raw form, and the readers in C and Rust that take it without Python."""

import shutil
import subprocess

import numpy as np
import pytest

from golden import ROOT
from npgemma.base.errors import CheckpointError
from npgemma.base.precision import round_bf16
from npgemma.judge import raw

ARRAYS = {
    "text.norm": ("bf16", round_bf16(np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4))),
    "text.logits": ("f32", np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)),
    "pixels": ("f64", np.linspace(-1, 1, 5)),
    "ids": ("i64", np.arange(7)),
    "mask.full": ("bool", np.arange(6).reshape(2, 3) % 2 == 0),
}


@pytest.fixture
def folder(tmp_path):
    """A raw folder of :data:`ARRAYS`."""
    written = raw.RawFolder(tmp_path / "raw")
    for name, (dtype, array) in ARRAYS.items():
        written.put(name, array, dtype)
    written.finish()
    return tmp_path / "raw"


def test_what_was_written_is_read(folder):
    entries = raw.read_list(folder)
    assert list(entries) == list(ARRAYS)
    for name, (_, array) in ARRAYS.items():
        assert np.array_equal(raw.read_raw(entries[name]), array), name
    assert (folder / "list.txt").read_text().splitlines()[0] == "text.norm bf16 0000.bin 2 3 4"
    assert '{"text.norm", "bf16", "0000.bin", 3, {2, 3, 4}},' in (folder / "tensors.h").read_text()
    assert np.array_equal(np.load(folder / "0001.npy"), ARRAYS["text.logits"][1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("text.norm bf16", "want 'name dtype file size size ...'"),
        ("text.norm q4 0000.bin 2", "dtype of f64"),
        ("text.norm bf16 ../0000.bin 2 3 4", "not a plain name"),
        ("text.norm bf16 0009.bin 2 3 4", "there is no file 0009.bin"),
        ("text.norm bf16 0000.bin 2 3 5", "0000.bin has 48 bytes, bf16 (2, 3, 5) needs 60"),
        ("text.norm bf16 0000.bin " + "9" * 5000, "want 'name dtype file size size ...'"),
        ("text.norm bf16 0000.bin 0 999999999999999999 9", "is larger than any memory"),
        ("text.norm bf16 0000.bin" + " 1" * 33, "is larger than any memory"),
        ("text.norm bf16 " + "x" * 300 + " 2", "there is no file xxx"),
        ("text.norm bf16 0000.bin 2 3 4\ntext.norm bf16 0000.bin 2 3 4", "occurs twice"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(folder, line, message):
    (folder / "list.txt").write_text(line)
    with pytest.raises(CheckpointError) as caught:
        raw.read_list(folder)
    assert message in str(caught.value) and "list.txt:" in str(caught.value)


def test_a_list_that_is_no_text_is_told_with_its_byte(folder):
    (folder / "list.txt").write_bytes(b"text.norm\xff bf16 0000.bin 2 3 4")
    with pytest.raises(CheckpointError, match="list.txt: byte 9 is not UTF-8; want a list of tensors"):
        raw.read_list(folder)


def compiled(language, tmp_path):
    """The reader of a language as a program; the test is left out where its compiler is missing."""
    compiler = shutil.which({"c": "cc", "rs": "rustc"}[language])
    if compiler is None:
        pytest.skip(f"no compiler for .{language} here")
    source, program = ROOT / "tools" / "readers" / f"compare.{language}", tmp_path / "reader"
    options = ["-Wall", "-Werror"] if language == "c" else ["--edition", "2021", "-D", "warnings"]
    libraries = ["-lm"] if language == "c" else []
    subprocess.run([compiler, "-O", *options, "-o", program, source, *libraries], check=True)
    return program


@pytest.mark.parametrize("language", ["c", "rs"])
def test_a_reader_without_python_finds_the_worst_element(language, folder, tmp_path):
    program, mine = compiled(language, tmp_path), tmp_path / "mine.bin"
    for name, (dtype, _) in ARRAYS.items():
        _, path, _ = raw.read_list(folder)[name]
        mine.write_bytes(path.read_bytes())
        done = subprocess.run([program, folder, name, mine], capture_output=True, text=True)
        assert done.returncode == 0 and f"{name}: 0 of " in done.stdout, (dtype, done)
    spoilt = bytearray((folder / "0000.bin").read_bytes())
    spoilt[2 * 17 : 2 * 17 + 2] = b"\x80\x40"  # 0x4080 is 4.0
    mine.write_bytes(spoilt)
    done = subprocess.run([program, folder, "text.norm", mine], capture_output=True, text=True)
    assert done.returncode == 3
    golden = ARRAYS["text.norm"][1].reshape(-1)[17].item()
    assert done.stdout == f"text.norm: 1 of 24 differ; worst at 17: yours 4, golden {golden:.9g}\n"


@pytest.mark.parametrize("language", ["c", "rs"])
def test_a_reader_tells_what_is_missing(language, folder, tmp_path):
    program = compiled(language, tmp_path)
    for words, code in (([folder, "nothing", folder / "0000.bin"], 1), ([tmp_path, "ids", "x"], 2), ([], 1)):
        done = subprocess.run([program, *words], capture_output=True, text=True)
        assert done.returncode == code and done.stderr.count("\n") == 1, done


@pytest.mark.parametrize(("language", "most"), [("c", 40), ("rs", 60)])
def test_readers_are_short(language, most):
    assert len((ROOT / "tools" / "readers" / f"compare.{language}").read_text().splitlines()) <= most
