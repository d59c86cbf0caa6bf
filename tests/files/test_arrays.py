"""Arrays and archives of NumPy: what NumPy writes is read, everything else is refused before an array is made."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from npgemma.base.errors import CheckpointError
from npgemma.files.arrays import archive_readers, read_array

ARRAYS = {
    "f4": np.arange(6, dtype=np.float32).reshape(2, 3),
    "big-endian, in Fortran's order": np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
    "bool": np.array([True, False]),
    "a number": np.array(3, np.int64),
    "nothing": np.zeros((0, 4), np.float16),
    "two bytes": np.array([1, 2], np.uint16).view("V2"),
}


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_header(text, numbers=b""):
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode() + numbers


@pytest.mark.parametrize("name", ARRAYS)
def test_row_43_what_numpy_writes_is_read(name, tmp_path):
    array = ARRAYS[name]
    np.save(tmp_path / "x.npy", array)
    found = read_array(tmp_path / "x.npy", CheckpointError)
    assert found.dtype == array.dtype and np.array_equal(found, array) and not found.flags.writeable
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **{"a.b": array})
        [(key, read)] = archive_readers(tmp_path / "x.npz", CheckpointError).items()
        assert key == "a.b" and read().dtype == array.dtype and np.array_equal(read(), array)


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
BROKEN = {
    "nothing": (b"", "is no .npy file"),
    "a text": (b"hello, this is no array", "is no .npy file"),
    "a version of the future": (b"\x93NUMPY\x09" + bytes(20), "is no .npy file"),
    "objects": (npy(np.array([{}, 1], object)), r"has dtype '\|O'; want a plain array of numbers"),
    "texts": (npy(np.array(["a"])), "has dtype '<U1'"),
    "records": (npy(np.zeros(2, "f4,i4")), "its header is damaged"),
    "complex numbers": (npy(np.zeros(2, np.complex64)), "has dtype '<c8'"),
    "code": (with_header(PLAIN.replace("(2,)", "__import__('os')")), "its header is damaged"),
    "brackets": (with_header("(" * 500 + PLAIN), "its header is damaged"),
    "a backslash": (with_header(PLAIN.replace("<f4", "\\\\d")), "its header is damaged"),
    "no shape": (with_header("{'descr': '<f4', 'fortran_order': False}"), "its header is damaged"),
    "a header of megabytes": (with_header(PLAIN + " " * 20000), "its header is damaged"),
    "a negative size": (with_header(PLAIN.replace("2,", "-2,")), r"has shape \(-2,\)"),
    "a boolean size": (with_header(PLAIN.replace("2,", "True,")), r"has shape \(True,\)"),
    "a number as order": (with_header(PLAIN.replace("False", "0")), "and order 0"),
    "forty axes": (with_header(PLAIN.replace("2,", "1," * 40)), "has shape"),
    "a shape beyond memory": (with_header(PLAIN.replace("2,", f"0, {2**59}, 9,")), "larger than"),
    "too few bytes": (npy(np.zeros(9))[:-1], "needs 72 bytes, 71 are there"),
    "too many": (npy(np.zeros(9)) + b"x", "needs 72 bytes, 73 are there"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_row_43_a_broken_array_is_refused(kind, tmp_path):
    data, message = BROKEN[kind]
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        read_array(tmp_path / "x.npy", CheckpointError)


def test_row_40_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        read_array(tmp_path / "x.npy", CheckpointError)
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        archive_readers(tmp_path / "x.npy", CheckpointError)


def zipped(path, *members, way=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", way) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def refused(path, message):
    with pytest.raises(CheckpointError, match=message):
        for read in archive_readers(path, CheckpointError).values():
            read()


def test_row_43_a_broken_archive_is_refused(tmp_path):
    path, good = tmp_path / "x.npz", npy(np.zeros(5))
    path.write_bytes(b"PK\x03\x04")
    refused(path, "is no .npz archive")
    refused(zipped(path, ("x.npy", good), ("x", good)), "'x' occurs twice")
    refused(zipped(path, ("x.npy", good), way=zipfile.ZIP_LZMA), "is encrypted, or packed as numpy.savez packs nothing")
    refused(zipped(path, ("x.npy", bytes(100_000_000)), way=zipfile.ZIP_DEFLATED), "would unpack to 100,000,000")
    refused(zipped(path, ("x.npy", pickle.dumps(good))), "x.npz: 'x': is no .npy file")


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_row_43_a_member_that_is_not_what_the_archive_says_is_refused(way, tmp_path):
    path = zipped(tmp_path / "x.npz", ("x.npy", npy(np.arange(5.0))), way=way)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    refused(path, "'x' (is not what the archive says|cannot be unpacked)")
    path.write_bytes(b"XX" + whole[2:])
    refused(path, "'x' does not lie where the archive says")


def test_row_43_a_packed_member_that_cannot_be_unpacked_is_refused(tmp_path):
    path = zipped(tmp_path / "x.npz", ("x.npy", npy(np.arange(5.0))), way=zipfile.ZIP_DEFLATED)
    whole, first = path.read_bytes(), 30 + len("x.npy")
    path.write_bytes(whole[:first] + b"\xff" + whole[first + 1 :])  # a kind of block that deflate does not have
    refused(path, "'x' cannot be unpacked: .*invalid block type; get the file again")
