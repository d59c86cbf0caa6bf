"""A trace as one ``.safetensors`` file, written a tensor at a time.

The header stands before the data and says where each tensor ends, but a generation may end early.  So its place is
kept free, as large as it can become, and it is written last: what an interruption leaves has no header, lies under
another name, and is removed.  Metadata of the format are strings: what is no text is JSON in it.
"""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base import half
from npgemma.base.errors import CheckpointError, OutputError
from npgemma.files import writer
from npgemma.files.reader import parse_json
from npgemma.files.safetensors_file import MappedFile

FORMAT = "npgemma.trace"
# Names and axes change with the first number only.  2 brought `token_types` and `attention_mask`; all of 1 is in it.
VERSION, READABLE = [2, 0], ([1], [2])

# What of a manifest is text; the rest is JSON.
TEXTS = ("format", "npgemma", "numpy", "model", "precision", "convention", "prompt", "image", "run", "first_nonfinite")

# Explicitly little-endian, as the format is; bfloat16 comes as float32, which holds each of its values.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "BOOL": "|b1", "BF16": "<u2"}
CODES = {"float64": "F64", "float32": "F32", "int64": "I64", "bool": "BOOL"}

# Room for what a run adds to its manifest besides names: the first name that was not finite.
SLACK = 1024


class TraceFile:
    """A file that tensors are put into, one after the other.

    Parameters
    ----------
    file : Output
    reserved : int
        Bytes kept free for the header, a multiple of 8.
    """

    def __init__(self, file, reserved: int) -> None:
        self.file = file
        self.reserved = reserved
        self.entries: dict[str, dict[str, Any]] = {}
        self.end = 0
        file.write(bytes(8 + reserved))

    def put(self, name: str, array: np.ndarray) -> None:
        """Write one tensor behind the others."""
        code = CODES[str(array.dtype)]
        whole = np.ascontiguousarray(array, dtype=DTYPES[code])
        self.file.write(whole.reshape(-1).view(np.uint8).data)
        span = [self.end, self.end + whole.nbytes]
        self.entries[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": span}
        self.end = span[1]

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the header: with it the file is whole."""
        header = header_bytes(self.entries, manifest)
        if len(header) > self.reserved:
            raise OutputError(f"the header takes {len(header):,} bytes, {self.reserved:,} were kept free; report this")
        self.file.seek(0)
        self.file.write(self.reserved.to_bytes(8, "little") + header.ljust(self.reserved))


@contextlib.contextmanager
def writing(
    path: Path, shapes: Mapping[str, tuple[int, ...]], manifest: Mapping[str, Any], nbytes: int, force: bool = False
):
    """Write a file that either appears whole under its name, or not at all.

    Parameters
    ----------
    path : Path
        Must not exist yet, unless ``force``.
    shapes : mapping of str to tuple of int
        All tensors that may come.
    manifest : mapping
        As large as it can become.
    nbytes : int
        Of all tensors.

    Yields
    ------
    file : TraceFile
    """
    with writer.writing(path, force, nbytes) as output:
        yield TraceFile(output, header_room(shapes, manifest, nbytes))


def header_room(shapes: Mapping[str, tuple[int, ...]], manifest: Mapping[str, Any], nbytes: int) -> int:
    """How long the header can become, in bytes, rounded up to a multiple of 8."""
    span = [nbytes, nbytes]
    entries = {name: {"dtype": "BOOL", "shape": list(shape), "data_offsets": span} for name, shape in shapes.items()}
    return -(-(len(header_bytes(entries, manifest)) + SLACK) // 8) * 8


def header_bytes(entries: Mapping[str, Any], manifest: Mapping[str, Any]) -> bytes:
    """Write the header's JSON."""
    metadata = {name: value if name in TEXTS else json.dumps(value) for name, value in manifest.items()}
    return json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()


def read_manifest(mapped: MappedFile) -> dict[str, Any]:
    """Read what a trace says of itself.

    Raises
    ------
    CheckpointError
        If the file is no trace, one of another version of the format, or its metadata are damaged.
    """
    path, metadata = mapped.path, mapped.metadata
    if metadata.get("format") != FORMAT:
        said = metadata.get("format")
        raise CheckpointError(f"{path}: is no npgemma trace: its metadata name the format {said!r:.80}")
    manifest = {
        name: value if name in TEXTS else parse_json(value.encode(), f"{path}: {name!r:.80}", CheckpointError, object)
        for name, value in metadata.items()
    }
    version = manifest.get("version")
    if not isinstance(version, list) or version[:1] not in READABLE:
        raise CheckpointError(f"{path}: is a trace of format {version!r:.80}; this npgemma reads 1.x and 2.x")
    absent = [name for name in ("axes", "precision", "run") if name not in manifest]
    axes = manifest.get("axes")
    if absent or not isinstance(axes, dict) or not all(isinstance(axes.get(name), str) for name in mapped.tensors):
        fault = f"say nothing of {', '.join(absent)}" if absent else "do not say the axes of each tensor"
        raise CheckpointError(f"{path}: is a damaged trace: its metadata {fault}; write it again")
    return manifest


def read_tensor(mapped: MappedFile, name: str) -> np.ndarray:
    """Give a tensor of a trace, or of another runtime's file: read-only, mapped; bfloat16 and float16 widened."""
    place = mapped.tensors[name]
    if place.dtype not in DTYPES:
        raise CheckpointError(f"{mapped.path}: {name!r} has dtype {place.dtype}; supported: {', '.join(DTYPES)}")
    stored_as = np.dtype(DTYPES[place.dtype])
    flat = np.frombuffer(mapped.mapping, stored_as, count=math.prod(place.shape), offset=place.start)
    native = half.widen(flat.astype(stored_as.newbyteorder("="), copy=False)).reshape(place.shape)
    native.flags.writeable = False
    return native


def read_tensors(mapped: MappedFile) -> dict[str, np.ndarray]:
    """Map all tensors of a file, in the order in which they were written."""
    in_order = sorted(mapped.tensors.values(), key=lambda each: each.start)
    return {each.name: read_tensor(mapped, each.name) for each in in_order}
