"""The tensors of a port, whatever they come in: safetensors, .npz, a folder of .npy, or raw numbers with a list.

One is read at a time, mapped where the format allows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npgemma.base import half
from npgemma.base.errors import CheckpointError
from npgemma.files.arrays import archive_readers, read_array
from npgemma.files.reader import named
from npgemma.files.safetensors_file import MappedFile, open_safetensors
from npgemma.judge import raw
from npgemma.tracing import trace_file


@dataclass(frozen=True)
class Theirs:
    """Tensors by the names they came with.

    Parameters
    ----------
    path : Path
    readers : dict of str to callable
        Each reads one tensor: floats in their own type, bfloat16 as float32.
    mapped : MappedFile, optional
        The file that they lie in, where they are mapped.
    """

    path: Path
    readers: dict[str, Callable[[], np.ndarray]]
    mapped: MappedFile | None = None

    def let_go(self, name):
        """Hand the memory of one tensor's file back to the system; it can be read again."""
        if self.mapped is not None and name in self.mapped.tensors:
            self.mapped.let_go(name)

    def read(self, name):
        """Read one tensor.

        Raises
        ------
        CheckpointError
            If it is damaged, or holds no numbers.
        """
        array = self.readers[name]()
        if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # how NumPy writes another package's bfloat16
            array = array.view(np.uint16)
        return half.widen(array)


def open_theirs(path):
    """Find out what a path holds.

    Raises
    ------
    CheckpointError
        If it is none of the formats, or damaged.
    """
    path = named(path)
    if path.is_dir():
        return Theirs(path, in_folder(path))
    if path.suffix == ".npz":
        return Theirs(path, archive_readers(path, CheckpointError))
    mapped = open_safetensors(path)
    in_order = sorted(mapped.tensors.values(), key=lambda tensor: tensor.start)
    readers = {each.name: lambda name=each.name: trace_file.read_tensor(mapped, name) for each in in_order}
    return Theirs(path, readers, mapped)


def in_folder(folder):
    """The tensors of a folder: raw with a list, or one .npy each, whose name is the tensor's."""
    if (folder / raw.LIST).exists():
        return {name: lambda entry=entry: raw.read_raw(entry) for name, entry in raw.read_list(folder).items()}
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise CheckpointError(f"{folder}: holds neither {raw.LIST} nor .npy files; want tensors of a port")
    return {file.stem: lambda file=file: read_array(file, CheckpointError) for file in files}
