"""NumPy's ``.npy`` and ``.npz``, read without NumPy's own readers, which unpickle, evaluate and unpack before they ask.

An array's header is held against the bytes behind it before an array is made; an archive's members may be stored or
deflated, each name comes once, and none grows beyond measure.  Not supported: objects, texts, dates, complex numbers.
"""

import ast
import functools
import math
import mmap
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npgemma.base.errors import NpgemmaError
from npgemma.files.reader import open_regular, why

MAGIC = b"\x93NUMPY"
# What a header consists of; so much is a hundred times what a plain array needs.
PLAIN = re.compile(r"[\w\s{}(),:'\"<>|=.+-]{1,10000}")
NUMBERS = re.compile(r"[<>|=]?([fiu][1248]|b1|V2)")  # V2: another package's bfloat16
AXES = 32
# What zipfile raises of an archive that is none or damaged.
DAMAGED = (
    OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, LookupError, zlib.error,
    struct.error, OverflowError, TypeError,
)  # fmt: skip
# An archive of plain arrays may unpack to so much, or to so many times its size.
UNPACKED, RATIO = 24 * 2**20, 4


def array_of(data: Any, place: str, error: type[NpgemmaError]) -> np.ndarray:
    """Give the array that the bytes of an ``.npy`` file hold: read-only, and not copied.

    Parameters
    ----------
    data : bytes or memoryview
    place : str
        What an error message begins with.
    error : type of NpgemmaError
        What to raise.
    """
    begin = {1: 10, 2: 12, 3: 12}.get(data[6] if len(data) > 12 and bytes(data[:6]) == MAGIC else 0)
    if begin is None:
        raise error(f"{place}: is no .npy file; want one of numpy.save")
    size = int.from_bytes(data[8:begin], "little")
    descr, fortran, shape = header_of(bytes(data[begin : begin + min(size, 20000)]), place, error)
    dtype, held = np.dtype(descr), len(data) - begin - size
    needed = math.prod(shape) * dtype.itemsize
    if needed != held:
        raise error(f"{place}: {dtype} {shape} needs {needed:,} bytes, {held:,} are there; the file is damaged")
    flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=begin + size)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    array.flags.writeable = False
    return array


def header_of(text: bytes, place: str, error: type[NpgemmaError]) -> tuple[str, bool, tuple[int, ...]]:
    """Read the type, the order and the shape that a header tells."""
    want = "want a plain array of numbers"
    plain = text.decode("latin1")
    try:
        found = ast.literal_eval(plain.strip()) if PLAIN.fullmatch(plain) else {}
        descr, fortran, shape = (found[name] for name in ("descr", "fortran_order", "shape"))
    except (SyntaxError, ValueError, TypeError, LookupError, MemoryError, RecursionError):
        raise error(f"{place}: its header is damaged; {want}") from None
    if not isinstance(descr, str) or not NUMBERS.fullmatch(descr):
        raise error(f"{place}: has dtype {descr!r:.40}; {want}")
    sizes = isinstance(shape, tuple) and len(shape) <= AXES and all(type(n) is int and 0 <= n < 2**60 for n in shape)
    if not sizes or type(fortran) is not bool:
        raise error(f"{place}: has shape {shape!r:.40} and order {fortran!r:.40}; {want}")
    if math.prod(max(size, 1) for size in shape) >= 2**60:
        raise error(f"{place}: shape {shape!r:.80} is larger than any memory; the file is damaged")
    return descr, fortran, shape


def read_array(path: Path, error: type[NpgemmaError]) -> np.ndarray:
    """Map the array of an ``.npy`` file, read-only."""
    descriptor, found = open_regular(path, error)
    with os.fdopen(descriptor, "rb") as file:
        return array_of(mapped(file, found.st_size), str(path), error)


def mapped(file: BinaryIO, size: int) -> memoryview:
    """Map an open file; an empty one has nothing to map."""
    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"")


# --- archives --------------------------------------------------------------------------------------------------------


def archive_readers(path: Path, error: type[NpgemmaError]) -> dict[str, Callable[[], np.ndarray]]:
    """Give, for each array of an ``.npz`` archive, a function that reads it: mapped, or unpacked if it is packed.

    Parameters
    ----------
    path : Path
    error : type of NpgemmaError
        What to raise, also by the functions.
    """
    descriptor, found = open_regular(path, error)
    with os.fdopen(descriptor, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except DAMAGED as problem:
            raise error(f"{path}: is no .npz archive: {why(problem):.200}; get the file again") from None
        whole = mapped(file, found.st_size)
    check_members(path, members, len(whole), error)
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in readers:
            raise error(f"{path}: {name!r:.80} occurs twice; remove one")
        readers[name] = functools.partial(read_member, whole, member, f"{path}: {name!r:.80}", error)
    return readers


def check_members(path: Path, members: list[zipfile.ZipInfo], packed: int, error: type[NpgemmaError]) -> None:
    """Refuse an archive whose members are packed in an unusual way, or would unpack to very much."""
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise error(f"{path}: {member.filename!r:.80} is encrypted, or packed as numpy.savez packs nothing")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(UNPACKED, RATIO * packed):
        raise error(f"{path}: {packed:,} bytes would unpack to {unpacked:,}; write it with numpy.savez")


def read_member(whole: memoryview, member: zipfile.ZipInfo, place: str, error: type[NpgemmaError]) -> np.ndarray:
    """Read one array of an archive.

    Notes
    -----
    Before a member's bytes stand 30 of its own, two lengths among them, a name and an extra field.  Reference: PKWARE's
    APPNOTE.TXT, 4.3.7.
    """
    own = whole[max(member.header_offset, 0) :][:30]
    if bytes(own[:4]) != b"PK\x03\x04" or len(own) < 30:
        raise error(f"{place} does not lie where the archive says; get the file again")
    begin = member.header_offset + 30 + sum(int.from_bytes(own[at : at + 2], "little") for at in (26, 28))
    data = whole[begin : begin + member.compress_size]
    if member.compress_type == zipfile.ZIP_DEFLATED:
        try:
            data = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1))
        except (zlib.error, OverflowError) as problem:
            raise error(f"{place} cannot be unpacked: {problem}; get the file again") from None
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise error(f"{place} is not what the archive says (size and checksum); get the file again")
    return array_of(data, place, error)
