"""The raw form of a pack, for readers without Python: little-endian numbers, one file a tensor, and a plain list.

``list.txt`` has a line a tensor: ``name dtype file size size ...``, for example ``text.norm bf16 0141.bin 1 70 128``.
``tensors.h`` is the same as a C array; ``.npy`` files lie beside where NumPy has the type.
"""

import io
import math
from pathlib import Path

import numpy as np

from npgemma.base.errors import CheckpointError
from npgemma.files import writer
from npgemma.files.reader import JSON_LIMIT, read_file
from npgemma.judge.rounding import bf16_bits

LIST, HEADER = "list.txt", "tensors.h"
# Explicitly little-endian.
DTYPES = {"f64": "<f8", "f32": "<f4", "bf16": "<u2", "i64": "<i8", "i32": "<i4", "bool": "|b1"}

HEADER_HEAD = """/* What {list} says, as C: open each file, read as many little-endian numbers as its shape has. */
struct golden_tensor { const char *name, *dtype, *file; int num_axes; long shape[6]; };
static const struct golden_tensor golden_tensors[] = {
"""


class RawFolder:
    """A new folder of raw tensors that are put in one after the other.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    with_npy : bool
        Whether each tensor is written as .npy too.
    """

    def __init__(self, folder, with_npy=True):
        self.folder, self.with_npy = Path(folder), with_npy
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines, self.rows = [], []

    def put(self, name, array, dtype):
        """Write one tensor; ``dtype`` is of :data:`DTYPES`, and bf16 comes as float32 of such values."""
        file = f"{len(self.lines):04d}.bin"
        numbers = bf16_bits(array) if dtype == "bf16" else array
        whole = np.ascontiguousarray(numbers, dtype=DTYPES[dtype])
        writer.write_file(self.folder / file, whole.tobytes())
        if self.with_npy:
            npy = io.BytesIO()
            np.save(npy, np.asarray(array, order="C"))
            writer.write_file(self.folder / file.replace(".bin", ".npy"), npy.getvalue())
        self.lines.append(" ".join([name, dtype, file, *map(str, array.shape)]))
        sizes = ", ".join(map(str, array.shape))
        self.rows.append(f'    {{"{name}", "{dtype}", "{file}", {array.ndim}, {{{sizes}}}}},\n')

    def finish(self):
        """Write the list and the header: with them the folder is whole."""
        writer.write_file(self.folder / LIST, "".join(f"{line}\n" for line in self.lines).encode())
        head = HEADER_HEAD.replace("{list}", LIST)
        writer.write_file(self.folder / HEADER, (head + "".join(self.rows) + "};\n").encode())


def read_list(folder):
    """Read a list of raw tensors: name to (dtype, path, shape).

    Raises
    ------
    CheckpointError
        With the line, if it is no such list, a file lies elsewhere or has another size.
    """
    path = Path(folder) / LIST
    try:
        lines = read_file(path, JSON_LIMIT, CheckpointError).decode().splitlines()
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: byte {problem.start} is not UTF-8; want a list of tensors") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, entry = read_line(f"{path}:{number}", Path(folder), line)
            if name in found:
                raise CheckpointError(f"{path}:{number}: {name!r} occurs twice; remove one")
            found[name] = entry
    return found


def read_line(place, folder, line):
    """Read one line of a list, and hold it against its file."""
    words = line.split()
    sizes = words[3:]
    if len(words) < 3 or words[1] not in DTYPES or not all(word.isdecimal() and len(word) <= 18 for word in sizes):
        raise CheckpointError(
            f"{place}: {line!r:.80}; want 'name dtype file size size ...', dtype of {', '.join(DTYPES)}"
        )
    name, dtype, file = words[:3]
    if Path(file).name != file or file in (".", ".."):
        raise CheckpointError(f"{place}: the file name {file!r} is not a plain name; want a file of this folder")
    shape = tuple(int(word) for word in sizes)
    if len(shape) > 32 or math.prod(max(size, 1) for size in shape) >= 2**60:
        raise CheckpointError(f"{place}: shape {shape!r:.80} is larger than any memory; the list is damaged")
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    path = folder / file
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:  # too long a name
        size = None
    if size is None:
        raise CheckpointError(f"{place}: there is no file {file:.80}")
    if size != needed:
        raise CheckpointError(f"{place}: {file} has {size:,} bytes, {dtype} {shape} needs {needed:,}")
    return name, (dtype, path, shape)


def read_raw(entry):
    """Map one raw tensor, read-only; bf16 is widened to float32."""
    dtype, path, shape = entry
    if 0 in shape:
        return np.zeros(shape, dtype="<f4" if dtype == "bf16" else DTYPES[dtype])
    numbers = np.memmap(path, dtype=DTYPES[dtype], mode="r", shape=shape)
    return (numbers.astype(np.uint32) << 16).view(np.float32) if dtype == "bf16" else numbers
