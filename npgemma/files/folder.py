"""Reading a model's folder without leaving it."""

import os
from pathlib import Path

from npgemma.base.errors import NpgemmaError

LONGEST_NAME = 255  # bytes, of any file system in use


def model_file(folder: Path, name: str, error: type[NpgemmaError]) -> Path:
    """Give the path of ``name`` in a model's folder, if it leads nowhere else.

    Parameters
    ----------
    folder : Path
    name : str
        One file name, as an index may list it; anything that could be a path is refused.
    error : type of NpgemmaError
        What to raise.

    Notes
    -----
    A symbolic link may lead to another file of the folder or, from ``models--x--y/snapshots/REVISION`` of a Hugging
    Face cache, into ``models--x--y/blobs``.
    """
    if not is_plain(name):
        raise error(f"{folder}: the file name {name!r:.80} is not a plain name; want a file of this folder")
    # realpath, unlike Path.resolve, survives links that lead in a circle.
    root = Path(os.path.realpath(folder))
    target = Path(os.path.realpath(root / name))
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise error(f"{folder / name}: is a link to {target}, outside the model's folder; copy the file into it")
    return folder / name


def is_plain(name: str) -> bool:
    """Tell whether a name is a file's, and no path: ``model-00001-of-00002.safetensors``."""
    try:
        fits = 0 < len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return fits and name not in (".", "..") and not any(char in name for char in "/\\:\0")
