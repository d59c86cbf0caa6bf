"""Finding a model: a folder, or a hub id whose files lie in the local Hugging Face cache.  Nothing is downloaded."""

import os
import re
from pathlib import Path

from npgemma.base.errors import CheckpointError, InputError
from npgemma.checkpoints.shards import OTHER_WEIGHTS
from npgemma.files.reader import is_there, read_file

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def find_model(name_or_folder: str | os.PathLike[str]) -> Path:
    """Give the folder of a model.

    Parameters
    ----------
    name_or_folder : str or Path
        An existing folder, or a hub id such as ``google/paligemma2-3b-mix-224``.

    Raises
    ------
    InputError
        If it is neither, saying which command would download it.
    CheckpointError
        If the cache holds only a part of it.
    """
    if not isinstance(name_or_folder, str | os.PathLike):
        raise InputError(f"came as {type(name_or_folder).__name__}; want a folder or a hub id", argument="model")
    name, folder = os.fspath(name_or_folder), Path(name_or_folder)
    if not name:
        raise InputError("the name is empty; want a folder or a hub id", argument="model")
    try:
        if folder.is_dir():
            return folder
    except OSError as problem:  # a name too long, a folder that may not be looked into
        raise InputError(f"{name:.80}: {problem.strerror}; want a folder or a hub id", argument="model") from None
    if folder.exists():
        told = OTHER_WEIGHTS.get(folder.suffix)
        text = f": {told}" if told else ""
        raise InputError(f"{name!r} is a file{text}; want the folder that holds config.json", argument="model")
    if not HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise InputError(
            f"there is no folder {name!r}, and it is no hub id (owner/name); check the path",
            argument="model",
        )
    return find_snapshot(name, cache_folder())


def cache_folder() -> Path:
    """Where the Hugging Face libraries keep what they download."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser() / "hub"
    general = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(general).expanduser() / "huggingface" / "hub"


def find_snapshot(name: str, cache: Path) -> Path:
    """Give the snapshot that the branch ``main`` of a hub id had when it was downloaded."""
    home = cache / ("models--" + name.replace("/", "--"))
    download = f"to download it: hf download {name}"
    if not home.is_dir():
        raise InputError(
            f"there is no folder {name!r} here (check the path), and no model of that name in {cache}; {download}",
            argument="model",
        )
    branch = home / "refs" / "main"
    revision = read_file(branch, 1024, CheckpointError).decode("ascii", "replace").strip() if is_there(branch) else ""
    if not re.fullmatch(r"[0-9a-zA-Z]{1,80}", revision):
        snapshots = home / "snapshots"
        found = sorted(path.name for path in snapshots.iterdir()) if snapshots.is_dir() else []
        instead = f"or give one of {', '.join(str(snapshots / one) for one in found)}" if found else "nothing is there"
        raise CheckpointError(f"{home}: refs/main names no revision; {download}, {instead}")
    snapshot = home / "snapshots" / revision
    if not (snapshot / "config.json").is_file():
        raise CheckpointError(f"{snapshot}: has no config.json: the download did not finish; {download}")
    return snapshot
