"""One safetensors file: each way it can be broken, by name."""

import copy
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import file_bytes, header_of, write_folder

from npgemma.base.errors import CheckpointError, NpgemmaError
from npgemma.files import safetensors_file
from npgemma.files.safetensors_file import MappedArrays, open_safetensors

ROOT = Path(__file__).resolve().parents[2]
A = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -0.25]], np.float32)
B = np.array([1.0, 2.0], np.float32)
NAMED = {"a": ("F32", A), "b": ("F32", B)}


def refusal(tmp_path, data):
    """The message with which a file of these bytes is refused, without its path."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_safetensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def edited(**changes):
    """A file whose header says something else about tensor b; None removes a field."""
    header = header_of(NAMED)
    header["b"] = {key: value for key, value in (header["b"] | changes).items() if value is not None}
    return file_bytes(NAMED, header)


def test_what_was_written_is_read_bit_for_bit_and_read_only(tmp_path):
    bits = np.array([[0x3F80, 0xC000], [0x0001, 0x7F7F]], np.uint16)
    half = np.array([1.5, -65504.0, 6e-8], np.float16)
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes({"a": ("F32", A), "bits": ("BF16", bits), "half": ("F16", half)}))
    file = open_safetensors(path)
    for name, wanted in (("a", A), ("bits", bits), ("half", half)):
        array = file.array(name)
        assert array.dtype == wanted.dtype and np.array_equal(array, wanted)
        with pytest.raises(ValueError):
            array.flags.writeable = True


def test_metadata_and_tensors_of_other_kinds_are_no_hindrance(tmp_path):
    path = tmp_path / "model.safetensors"
    named = {"ids": ("I64", np.arange(3)), "a": ("F32", A)}
    path.write_bytes(file_bytes(named, header_of(named) | {"__metadata__": {"format": "pt"}}))
    file = open_safetensors(path)
    assert sorted(file.tensors) == ["a", "ids"]
    with pytest.raises(CheckpointError, match="'ids' has dtype I64; supported: BF16, F16, F32"):
        file.array("ids")


def test_row_1_empty_file(tmp_path):
    assert "an empty file (0 bytes); the download did not finish" in refusal(tmp_path, b"")


def test_row_2_less_than_eight_bytes(tmp_path):
    assert refusal(tmp_path, b"\1\2\3") == "3 bytes are no safetensors file; download it again"


def test_row_3_header_length_beyond_the_format(tmp_path):
    message = refusal(tmp_path, struct.pack("<Q", 100_000_001) + b"{}" * 10)
    assert message == (
        "the header would have 100,000,001 bytes, the format allows 100,000,000: not a safetensors file"
    )


def test_row_4_git_lfs_pointer(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5847234\n"
    assert "a Git-LFS pointer, not the file itself; run `git lfs pull`" in refusal(tmp_path, pointer)


def test_row_5_html_page(tmp_path):
    message = refusal(tmp_path, b"<!DOCTYPE html><html><title>Log in</title></html>")
    assert "an HTML page" in message and "log in" in message and message.endswith("not safetensors")


@pytest.mark.parametrize("start", [b"\x80\x02}q\x00(X\x05\x00\x00\x00", b"PK\x03\x04\x14\x00\x00\x00\x08\x00"])
def test_row_6_pickles_are_refused_for_safety(tmp_path, start):
    message = refusal(tmp_path, start + b"\0" * 64)
    assert "refused for safety, a pickle can run code; convert it with transformers' save_pretrained" in message


@pytest.mark.parametrize("start, kind", [(b"GGUF\3\0\0\0", "GGUF"), (b"\x1f\x8b\x08\0\0\0\0\0", "gzip")])
def test_row_7_other_formats_are_named(tmp_path, start, kind):
    assert kind in refusal(tmp_path, start + b"\0" * 64)


def test_row_8_truncated_data(tmp_path):
    whole = file_bytes(NAMED)
    message = refusal(tmp_path, whole[:-5])
    assert "(5 bytes are missing): truncated download; download it again" in message
    assert f"{(len(whole) - 5) / 1e9:.4g} of {len(whole) / 1e9:.4g} GB" in message


def test_row_8_truncated_header(tmp_path):
    assert refusal(tmp_path, file_bytes(NAMED)[:20]).endswith("the file has 20: truncated download; download it again")


def test_row_9_trailing_bytes(tmp_path):
    assert refusal(tmp_path, file_bytes(NAMED) + b"xyz").startswith("3 bytes behind the last tensor 'b'")


def test_row_10_header_not_utf_8(tmp_path):
    assert refusal(tmp_path, file_bytes(NAMED, b'{"a\xff": 1}')).startswith("header: byte 3 is not UTF-8")


def test_row_10_header_not_json(tmp_path):
    assert refusal(tmp_path, file_bytes(NAMED, b'{"a": }')).startswith("header: not JSON at character 6")


def test_row_10_header_not_an_object(tmp_path):
    assert refusal(tmp_path, file_bytes(NAMED, b"[1, 2]")).startswith("header: holds a JSON list")


def test_row_10_header_nested_20_000_deep(tmp_path):
    assert "nested too deeply" in refusal(tmp_path, file_bytes({}, b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"))


def test_row_12_duplicate_tensor(tmp_path):
    one = json.dumps(header_of(NAMED)["a"])
    header = f'{{"a": {one}, "a": {one}}}'.encode()
    assert refusal(tmp_path, file_bytes({"a": NAMED["a"]}, header)) == "header: the key 'a' occurs twice; remove one"


def test_row_14_overlap_names_both_tensors(tmp_path):
    message = refusal(tmp_path, edited(data_offsets=[20, 28]))
    assert "tensor 'b' begins at byte" in message and "and overlaps 'a', which ends at" in message


def test_row_14_hole_names_both_tensors(tmp_path):
    assert "and leaves a hole behind 'a'" in refusal(tmp_path, edited(data_offsets=[28, 36]) + b"\0" * 4)


def test_row_14_first_tensor_not_at_the_start(tmp_path):
    header = header_of(NAMED, start=8)
    assert "leaves a hole behind the header" in refusal(tmp_path, file_bytes(NAMED, header) + b"\0" * 8)


def test_row_14_end_before_begin(tmp_path):
    message = refusal(tmp_path, edited(data_offsets=[32, 24]))
    assert message == "tensor 'b': data_offsets [32, 24]; want [begin, end], begin <= end"


@pytest.mark.parametrize("shape", [[-2], [2.0], [True], ["2"], "2", [2**63], [1] * 9])
def test_row_15_shapes_that_are_none(tmp_path, shape):
    assert "want a list of whole numbers from 0" in refusal(tmp_path, edited(shape=shape))


@pytest.mark.parametrize("offsets", [[-8, 0], [24.0, 32.0], [24], [24, 32, 40], None])
def test_row_15_offsets_that_are_none(tmp_path, offsets):
    assert "data_offsets" in refusal(tmp_path, edited(data_offsets=offsets))


def test_row_15_product_of_sizes_that_overflows_64_bits(tmp_path):
    assert "the offsets span 8" in refusal(tmp_path, edited(shape=[2**40, 2**40]))


def test_row_16_shape_against_bytes_shows_the_arithmetic(tmp_path):
    message = refusal(tmp_path, edited(shape=[3, 2]))
    assert message == "tensor 'b': 3 x 2 x 4 bytes = 24 for F32, the offsets span 8"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E8M0", "F4", "X9", 7, None])
def test_row_17_unknown_dtype(tmp_path, dtype):
    message = refusal(tmp_path, edited(dtype=dtype))
    assert message.startswith("tensor 'b': ")
    assert "supported: BF16, F16, F32" in message or "want dtype" in message


def test_row_21_strange_names_are_shown_quoted(tmp_path):
    header = {"../../x\n": header_of(NAMED)["a"] | {"shape": [7]}}
    assert refusal(tmp_path, file_bytes({"a": NAMED["a"]}, header)).startswith("tensor '../../x\\n': 7 x 4 bytes")


def test_what_only_the_library_finds_is_refused_too(tmp_path):
    data = file_bytes(NAMED, header_of(NAMED) | {"__metadata__": {"format": 3}})
    assert refusal(tmp_path, data).startswith("the safetensors library refuses it: ")


def test_row_40_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder; want a regular file"):
        open_safetensors(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_row_40_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        open_safetensors(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
def test_row_40_endless_device(tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        open_safetensors(tmp_path / "zero")


def test_row_40_no_permission(tmp_path, monkeypatch):
    def deny(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(safetensors_file.os, "open", deny)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        open_safetensors(tmp_path / "x")


def test_missing_file_and_dangling_link(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        open_safetensors(tmp_path / "x")
    (tmp_path / "y").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="is a link to nothing: the download did not finish"):
        open_safetensors(tmp_path / "y")


@pytest.mark.parametrize("change", ["shrunk", "replaced", "removed"])
def test_row_41_a_file_changed_while_mapped_is_noticed(tmp_path, change):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(NAMED))
    file = open_safetensors(path)
    file.check()
    if change == "shrunk":
        os.truncate(path, 40)
    elif change == "replaced":
        (tmp_path / "new").write_bytes(file_bytes(NAMED))
        (tmp_path / "new").replace(path)
        assert np.array_equal(file.array("a"), A)  # the mapping keeps the old file
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match="while in use.*; load again"):
        file.check()


def test_mapped_arrays_are_copied_pickled_and_replaced_as_a_dict_is(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(NAMED))
    file = open_safetensors(path)
    arrays = MappedArrays()
    for name in NAMED:
        arrays.lay(name, file.array(name), file)
    for other in (pickle.loads(pickle.dumps(arrays)), copy.deepcopy(arrays), MappedArrays(arrays)):
        assert np.array_equal(other["a"], A) and np.array_equal(other["b"], B) and len(other) == 2
    os.truncate(path, 40)
    arrays["b"] = B + 1.0
    assert arrays["b"].tolist() == [2.0, 3.0]
    for ask in (arrays.__getitem__, arrays.get):
        with pytest.raises(CheckpointError, match="was cut from"):
            ask("a")
    assert arrays.get("c") is None


CUT_WHILE_IN_USE = """
import os, sys
import npgemma
from npgemma.base.errors import CheckpointError

folder, dtype = sys.argv[1:]
model = npgemma.load(folder, dtype)
before = npgemma.forward(model, [[2, 5, 6]])
os.truncate(folder + "/model.safetensors", 4096)
try:
    npgemma.forward(model, [[2, 5, 6]])
except CheckpointError as error:
    print(error)
"""


def test_row_41_a_file_cut_while_in_use_is_an_error_and_no_crash(tmp_path):
    write_folder(tmp_path, dtype="BF16")
    command = [sys.executable, "-c", CUT_WHILE_IN_USE, str(tmp_path)]
    done = subprocess.run([*command, "bfloat16"], capture_output=True, text=True, cwd=ROOT)
    assert re.search(r"model.safetensors: was cut from [\d,]+ to 4,096 bytes while in use; load again", done.stdout)
    assert done.returncode == 0 and done.stderr == ""
    write_folder(tmp_path, dtype="BF16")
    done = subprocess.run([*command, "float32"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, ""), "widened weights need the file no more"


def test_row_86_stored_numbers_are_explicitly_little_endian_and_come_as_native_ones(tmp_path):
    assert [dtype.str for dtype in safetensors_file.FLOATS.values()] == ["<u2", "<f2", "<f4"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(NAMED))
    assert open_safetensors(path).array("a").dtype.isnative


def test_row_86_32_bit_python_refuses_what_it_cannot_address(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "maxsize", 50)
    assert "too many for a 32-bit Python" in refusal(tmp_path, file_bytes(NAMED))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_a_mutated_file_is_refused_or_reads_the_same(tmp_path_factory, data):
    """Flip a byte, cut, or swap a piece: an NpgemmaError, or arrays of the same names and shapes as the bytes say."""
    original = file_bytes(NAMED)
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "digit", "double"]))
        if kind == "flip":
            changed[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del changed[at : at + data.draw(st.integers(1, 8))]
        elif kind == "digit":
            changed[at] = data.draw(st.sampled_from(b'0123456789-.,"[]{}'))
        else:
            changed[at:at] = changed[at : at + 8]
        if not changed:
            break
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    path.write_bytes(changed)
    try:
        file = open_safetensors(path)
        arrays = [file.array(name) for name in file.tensors]
    except NpgemmaError:
        return
    # Accepted: then every byte behind the header belongs to exactly one tensor, as it lies in the file.
    length = int.from_bytes(changed[:8], "little")
    places = sorted(file.tensors.values(), key=lambda tensor: tensor.start)
    in_order = b"".join(file.array(tensor.name).tobytes() for tensor in places)
    assert in_order == bytes(changed[8 + length :])
    assert all(not array.flags.writeable for array in arrays)


def test_row_15_a_size_of_nothing_hides_no_size_that_cannot_be(tmp_path):
    named = {"a": ("F32", A), "b": ("F32", np.zeros(0, np.float32))}
    header = header_of(named)
    header["b"]["shape"] = [0, 2**62]
    assert "tensor 'b': shape [0, 4611686018427387904] is larger than any memory" in refusal(
        tmp_path, file_bytes(named, header)
    )
