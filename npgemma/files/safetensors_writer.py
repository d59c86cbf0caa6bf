"""Writing arrays as one ``.safetensors`` file, one after the other, so that no second copy of them is made."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.files import writer

# Little-endian, as the format is; 16 unsigned bits are bfloat16.
CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64"}


def write_safetensors(
    path: Path | str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], force: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> None:
    """Write named arrays; the file appears whole or not at all.  ``progress(bytes done, bytes)`` hears of each.

    Raises
    ------
    OutputError
        If it exists (unless ``force``), cannot be written, or there is no room for it.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        span = [end, end + array.nbytes]
        entries[name] = {"dtype": CODES[str(array.dtype)], "shape": list(array.shape), "data_offsets": span}
        end = span[1]
    header = json.dumps(entries).encode()
    header = header.ljust(-(-len(header) // 8) * 8)
    with writer.writing(path, force, 8 + len(header) + end) as output:
        output.write(len(header).to_bytes(8, "little") + header)
        done = 0
        for array in arrays.values():
            if progress is not None:
                progress(done, end)
            done += array.nbytes
            whole = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            output.write(whole.reshape(-1).view(np.uint8).data)
