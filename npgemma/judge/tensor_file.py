"""A file whose tensors are known beforehand, written one at a time, the same bytes each time."""

import contextlib
import hashlib
import json
import math

import numpy as np

from npgemma.base.errors import InputError
from npgemma.files import arrays_writer, writer
from npgemma.judge.rounding import bf16_bits, stored

CODES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "integer": "I64", "boolean": "BOOL"}
STORED = {"F64": "<f8", "F32": "<f4", "BF16": "<u2", "I64": "<i8", "BOOL": "|b1"}


class TensorFile:
    """Takes the tensors of a file in order.

    Parameters
    ----------
    output : Output
    planned : dict of str to (str, tuple)
        Name to kind (of :data:`CODES`) and shape.
    """

    def __init__(self, output, planned):
        self.output, self.planned, self.waiting = output, planned, list(planned)
        self.digests = {}
        output.write(header(planned))

    def put(self, name, array):
        """Write the next tensor; float64 numbers are rounded once to the kind that was planned."""
        if self.waiting[:1] != [name]:
            raise InputError(f"{name}: comes when {self.waiting[:1]} is expected")
        self.waiting.pop(0)
        data = bytes_of(array, self.planned[name][0])
        self.output.write(data)
        self.digests[name] = hashlib.sha256(data).hexdigest()


def header(planned):
    """The header of a file of such tensors, its length before it."""
    entries, end = {}, 0
    for name, (kind, shape) in planned.items():
        size = math.prod(shape) * np.dtype(STORED[CODES[kind]]).itemsize
        entries[name] = {"dtype": CODES[kind], "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    padded = text.ljust(-(-len(text) // 8) * 8)
    return len(padded).to_bytes(8, "little") + padded


def bytes_of(array, kind):
    """The bytes of a tensor of this kind, little-endian."""
    return np.ascontiguousarray(numbers_of(array, kind), dtype=STORED[CODES[kind]]).tobytes()


def numbers_of(array, kind):
    """A tensor in the numbers of this kind; bfloat16 as bits."""
    numbers = np.asarray(array)
    if kind in ("float64", "float32", "bfloat16"):
        rounded = stored(numbers, kind)
        return bf16_bits(rounded) if kind == "bfloat16" else rounded
    return numbers


def size_of_file(planned):
    """Bytes that such a file has."""
    return len(header(planned)) + sum(
        math.prod(shape) * np.dtype(STORED[CODES[kind]]).itemsize for kind, shape in planned.values()
    )


class NumpyFile:
    """Takes the same tensors for an ``.npz`` or a folder of ``.npy``."""

    def __init__(self, put, planned):
        self.put_array, self.planned = put, planned

    def put(self, name, array):
        """Write a tensor in the numbers that were planned."""
        self.put_array(name, numbers_of(array, self.planned[name][0]))


@contextlib.contextmanager
def writing(path, planned):
    """Write a file of tensors that is whole, or not there at all: what its suffix says."""
    if arrays_writer.format_of(path) != ".safetensors":
        with arrays_writer.writing_arrays(path, nbytes=size_of_file(planned)) as put:
            yield NumpyFile(put, planned)
        return
    with writer.writing(path, nbytes=size_of_file(planned)) as output:
        file = TensorFile(output, planned)
        yield file
        if file.waiting:
            raise InputError(f"{path}: {len(file.waiting)} tensors did not come, {file.waiting[0]} first")
