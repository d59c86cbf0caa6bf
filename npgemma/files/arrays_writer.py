"""Tensors one after the other, into what NumPy reads: an ``.npz`` archive, or a folder of ``.npy`` files.

NumPy has no bfloat16: its numbers go as two bytes each, which is how NumPy writes another package's bfloat16.
"""

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base.errors import InputError
from npgemma.files import writer

Put = Callable[[str, np.ndarray], None]


def format_of(path: Path | str) -> str:
    """Tell what a name asks for: ``.safetensors``, ``.npz``, or nothing for a folder of ``.npy`` files.

    Raises
    ------
    InputError
        If tensors are not written under such a name.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".npz", ""):
        raise InputError(
            f"{path}: tensors are written as .safetensors, as .npz, or without a suffix as a folder of .npy files; "
            f"not as {suffix}"
        )
    return suffix


@contextlib.contextmanager
def writing_arrays(path: Path | str, force: bool = False, nbytes: int = 0) -> Iterator[Put]:
    """Write an ``.npz`` or a folder that appears whole under its name, or not at all.

    Parameters
    ----------
    path : path
        A new one; with ``force`` an archive may take the place of another file.
    nbytes : int
        Of all numbers: refused where there is no room for them.

    Yields
    ------
    put : callable
        ``put(name, array)`` writes one more array; bfloat16 comes as ``uint16`` bits.
    """
    if format_of(path) == "":
        with writer.writing_folder(path, nbytes) as folder:
            yield lambda name, array: put_file(folder / f"{name}.npy", array)
        return
    with writer.writing(path, force, nbytes) as output, zipfile.ZipFile(Stream(output), "w") as archive:

        def put(name: str, array: np.ndarray) -> None:
            # Its default date, not today's: the same numbers are the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                write_array(member, array)

        yield put


class Stream:
    """An output as the zip module wants one that cannot be gone back in."""

    def __init__(self, output: writer.Output) -> None:
        self.output = output

    def write(self, data: Any) -> int:
        """Write bytes, and say how many."""
        self.output.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """The output is closed by whoever opened it."""


def put_file(path: Path, array: np.ndarray) -> None:
    """Write one array into a folder; a name such as ``want/x`` leads into a folder of it."""
    path.parent.mkdir(exist_ok=True)
    with writer.writing(path) as output:
        write_array(Stream(output), array)


def write_array(file: Any, array: np.ndarray) -> None:
    """Write an array in NumPy's format."""
    whole = np.ascontiguousarray(array).reshape(array.shape)
    stored = whole.view("V2") if whole.dtype == np.uint16 else whole
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(stored))
    file.write(whole.reshape(-1).view(np.uint8).data)
