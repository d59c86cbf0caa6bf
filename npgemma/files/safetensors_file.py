"""One ``.safetensors`` file: validated to the last byte of its header, then mapped into memory, read-only.

The safetensors library validates but cannot give bfloat16 to NumPy, and keeps the last of two equal keys; so the header
is read here too.  Nothing larger than the header is allocated.  bfloat16 comes as its bits, ``uint16``.

Notes
-----
The pages of a mapped file are read when they are first used.  If another program has cut the file short meanwhile, the
operating system ends this process (SIGBUS).  So :class:`MappedArrays` looks at a file's size before it hands out an
array of it; what is cut while that array is being read cannot be helped.  Replacing a file by renaming another over it
is harmless: the mapping keeps the old one.
"""

import math
import mmap
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors

from npgemma.base.errors import CheckpointError
from npgemma.files import sniff
from npgemma.files.reader import open_regular, parse_json

HEADER_LIMIT = 100_000_000  # bytes; the format's own

# Explicitly little-endian, as the format is.
FLOATS: dict[str, np.dtype] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
# What else a file may hold beside the weights (position ids, say), in bytes; never read.
OTHER_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "F64": 8}
ITEM_SIZES = {name: dtype.itemsize for name, dtype in FLOATS.items()} | OTHER_SIZES


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: ``start`` and ``end`` count bytes from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class MappedFile:
    """A validated file: its tensors by name, its metadata, and its bytes as a read-only array over the mapping."""

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    mapping: mmap.mmap
    identity: tuple[int, ...]

    def array(self, name: str) -> np.ndarray:
        """Give a tensor as it lies in the file, without copying: uint16 (bfloat16 bits), float16 or float32."""
        tensor = self.tensors[name]
        if tensor.dtype not in FLOATS:
            supported = ", ".join(FLOATS)
            raise CheckpointError(f"{self.path}: {name!r} has dtype {tensor.dtype}; supported: {supported}")
        stored = FLOATS[tensor.dtype]
        flat = np.frombuffer(self.mapping, stored, count=math.prod(tensor.shape), offset=tensor.start)
        # On a big-endian machine this copies; layers know native numbers only.
        return flat.astype(stored.newbyteorder("="), copy=False).reshape(tensor.shape)

    def let_go(self, name: str) -> None:
        """Hand the pages of a tensor that has been read back to the operating system; they can be read again."""
        tensor = self.tensors[name]
        if hasattr(self.mapping, "madvise") and tensor.end > tensor.start:
            first_page = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
            self.mapping.madvise(mmap.MADV_DONTNEED, first_page, tensor.end - first_page)

    def check(self) -> None:
        """Raise CheckpointError if the file is no longer the one that was mapped."""
        try:
            now = identity(os.stat(self.path))
        except OSError as problem:
            raise CheckpointError(f"{self.path}: vanished while in use ({problem}); load again") from None
        if now != self.identity:
            raise CheckpointError(f"{self.path}: was replaced or changed while in use; load again")

    def check_size(self) -> None:
        """Raise CheckpointError if the file was cut short: touching what is gone would end the process."""
        size, mapped = self.mapping.size(), len(self.mapping)
        if size < mapped:
            raise CheckpointError(f"{self.path}: was cut from {mapped:,} to {size:,} bytes while in use; load again")


@dataclass(frozen=True)
class Source:
    """Where one parameter lies: a file, and the tensor in it."""

    file: MappedFile
    tensor: StoredTensor

    def read(self) -> np.ndarray:
        """The tensor as stored, read-only, without copying."""
        return self.file.array(self.tensor.name)

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return self.tensor.end - self.tensor.start


class MappedArrays(dict[str, np.ndarray]):
    """Arrays by name, some of which lie in mapped ``files``, whose sizes are looked at when one is asked for by name.

    A pickled or copied one is a plain dict: a pickle holds the numbers themselves.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray] | Iterable[tuple[str, np.ndarray]] = ()) -> None:
        super().__init__(arrays)
        self.files: dict[str, MappedFile] = {}

    def lay(self, name: str, array: np.ndarray, file: MappedFile) -> None:
        """Add an array that lies in a mapped file."""
        self[name] = array
        self.files[name] = file

    def __getitem__(self, name: str) -> np.ndarray:
        file = self.files.get(name)
        if file is not None:
            file.check_size()
        return super().__getitem__(name)

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        self.files.pop(name, None)
        super().__setitem__(name, array)

    def get(self, name, default=None):
        """The array of that name, looked at as by ``[name]``."""
        return self[name] if name in self else default

    def __reduce__(self):
        return dict, (dict(self),)


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced, cut or written to."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def open_safetensors(path: Path) -> MappedFile:
    """Validate a file and map it.

    Raises
    ------
    CheckpointError
        If it is no regular file, no safetensors, damaged, or holds one tensor twice.
    """
    descriptor, found = open_regular(path, CheckpointError)
    try:
        check_addresses(path, found)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            tensors, metadata = read_header(path, file, found.st_size)
        ask_library(path)
        mapping = mmap.mmap(descriptor, found.st_size, access=mmap.ACCESS_READ)
        return MappedFile(path, tensors, metadata, mapping, identity(found))
    finally:
        os.close(descriptor)


def check_addresses(path: Path, found: os.stat_result) -> None:
    """Refuse what cannot be addressed."""
    if found.st_size > sys.maxsize:
        raise CheckpointError(f"{path}: {found.st_size:,} bytes are too many for a 32-bit Python; use a 64-bit one")


def read_header(path: Path, file, size: int) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the tensors' places and the metadata from the header, and hold them against the file's size."""
    head = file.read(1024)
    if size < 8:
        raise CheckpointError(f"{path}: {describe(head) or f'{size} bytes are no safetensors file'}; download it again")
    length = int.from_bytes(head[:8], "little")
    if length > HEADER_LIMIT or 8 + length > size:
        raise CheckpointError(f"{path}: {describe(head) or header_fault(length, size)}")
    file.seek(8)
    header = parse_json(file.read(length), f"{path}: header", CheckpointError)
    metadata = header.pop("__metadata__", None) or {}  # its form is the library's to check, which lets null pass
    tensors = [read_entry(path, name, entry, 8 + length) for name, entry in header.items()]
    check_cover(path, sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)), 8 + length, size)
    return {tensor.name: tensor for tensor in tensors}, metadata


def describe(head: bytes) -> str | None:
    """Say what a file is that is no safetensors, and what to do with it."""
    kind = sniff.describe(head)
    if kind in ("a zip archive", "a Python pickle"):
        return (
            f"{kind} (PyTorch .bin or .pt, NumPy .npz), not safetensors: refused for safety, a pickle can run code; "
            "convert it with transformers' save_pretrained"
        )
    if kind is None and sniff.is_text(head):
        kind = "a text file"
    return kind and f"{kind}, not safetensors"


def header_fault(length: int, size: int) -> str:
    """Explain a header length that cannot be true."""
    if length > HEADER_LIMIT:
        return f"the header would have {length:,} bytes, the format allows {HEADER_LIMIT:,}: not a safetensors file"
    return f"the header needs {8 + length:,} bytes, the file has {size:,}: truncated download; download it again"


def read_entry(path: Path, name: str, entry: object, base: int) -> StoredTensor:
    """Validate one tensor's entry of the header: dtype, shape, and that its bytes are as many as its shape needs."""
    place = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointError(f"{place}: the header says {entry!r:.80}; want dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise CheckpointError(f"{place}: dtype {dtype!r} is not supported; supported: {', '.join(FLOATS)}")
    if not is_counts(shape):
        raise CheckpointError(f"{place}: shape {shape!r:.80}; want a list of whole numbers from 0")
    if not is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{place}: data_offsets {offsets!r:.80}; want [begin, end], begin <= end")
    begin, end = offsets
    needed = math.prod(shape) * ITEM_SIZES[dtype]
    if needed != end - begin:
        product = " x ".join(map(str, [*shape, ITEM_SIZES[dtype]]))
        raise CheckpointError(f"{place}: {product} bytes = {needed:,} for {dtype}, the offsets span {end - begin:,}")
    if math.prod(max(size, 1) for size in shape) >= 2**60:  # a size of 0 hides the others from the count of bytes
        raise CheckpointError(f"{place}: shape {shape!r:.80} is larger than any memory; the file is damaged")
    return StoredTensor(name, dtype, tuple(shape), base + begin, base + end)


def is_counts(value: object) -> bool:
    """Tell whether a JSON value is a short list of whole numbers from 0 (and no booleans, which are ints too)."""
    return isinstance(value, list) and len(value) <= 8 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def check_cover(path: Path, in_order: list[StoredTensor], base: int, size: int) -> None:
    """Hold the tensors against each other and the file: no hole, no overlap, nothing behind the last."""
    reached, before = base, "the header"
    for tensor in in_order:
        if tensor.start != reached:
            fault = "overlaps" if tensor.start < reached else "leaves a hole behind"
            raise CheckpointError(
                f"{path}: tensor {tensor.name!r} begins at byte {tensor.start:,} and {fault} {before}, "
                f"which ends at {reached:,}; the file is damaged"
            )
        reached, before = tensor.end, repr(tensor.name)
    if size < reached:
        raise CheckpointError(
            f"{path}: {size / 1e9:.4g} of {reached / 1e9:.4g} GB ({reached - size:,} bytes are missing): "
            "truncated download; download it again"
        )
    if size > reached:
        raise CheckpointError(f"{path}: {size - reached:,} bytes behind the last tensor {before}; download it again")


def ask_library(path: Path) -> None:
    """Let the safetensors library validate the file too."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except (safetensors.SafetensorError, OSError, ValueError) as problem:
        raise CheckpointError(f"{path}: the safetensors library refuses it: {problem}; download it again") from None
