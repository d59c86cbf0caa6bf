"""The weight files of a model's folder: one ``model.safetensors``, or several with an index."""

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from npgemma.base.errors import CheckpointError, OddWarning
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there, read_json
from npgemma.files.safetensors_file import MappedFile, open_safetensors

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
OTHER_WEIGHTS = {
    ".npz": "big_vision's own format is not read; convert it with transformers' convert_paligemma*_weights_to_hf.py",
    ".bin": "PyTorch pickles are refused for safety; convert it with transformers' save_pretrained",
    ".pt": "PyTorch pickles are refused for safety; convert it with transformers' save_pretrained",
    ".pth": "PyTorch pickles are refused for safety; convert it with transformers' save_pretrained",
    ".gguf": "GGUF is not read; get the Hugging Face release",
}
# What browsers, curl-like programs and the hub's own tools call a file that they have not finished.
UNFINISHED = (".incomplete", ".crdownload", ".part", ".aria2", ".download")


def open_weights(folder: Path) -> dict[str, MappedFile]:
    """Open a folder's weight files and say which one holds each tensor.

    Returns
    -------
    holders : dict of str to MappedFile
        By the tensors' names as stored.

    Raises
    ------
    CheckpointError
        If files are missing, damaged, left over, or at odds with their index.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is not a folder; want one with config.json and {SINGLE}")
    single, index = is_there(folder / SINGLE), is_there(folder / INDEX)
    if single and index:
        raise CheckpointError(f"{folder}: has both {SINGLE} and {INDEX}; remove the one that is not meant")
    if single:
        file = open_safetensors(model_file(folder, SINGLE, CheckpointError))
        return dict.fromkeys(file.tensors, file)
    if index:
        return open_shards(folder)
    raise CheckpointError(f"{folder}: has neither {SINGLE} nor {INDEX}; {what_else(folder)}")


def what_else(folder: Path) -> str:
    """Say what a folder without weights, or without a configuration, holds instead."""
    found = sorted(path.name for path in folder.iterdir())
    if SINGLE in found or INDEX in found:
        return "the weights are there, so the download did not finish; download the rest"
    if "adapter_config.json" in found:
        return "it holds a LoRA adapter: merge it into its base model (peft's merge_and_unload) and save that"
    for name in found:
        suffix = Path(name).suffix
        if suffix in OTHER_WEIGHTS:
            return f"it has {name!r}: {OTHER_WEIGHTS[suffix]}"
        if suffix in UNFINISHED:
            return f"it has {name!r}: the download did not finish; download it again"
        if suffix == ".safetensors":
            return f"it has {name!r}: shards need {INDEX}, a single file the name {SINGLE}"
    return "give the folder of a checkpoint"


def open_shards(folder: Path) -> dict[str, MappedFile]:
    """Open what an index lists, and hold index and files against each other, both ways."""
    where = folder / INDEX
    listed, said = read_index(folder)
    present = {path.name for path in folder.iterdir() if SHARD.fullmatch(path.name)}
    refuse_any(where, "files of the folder that the index does not list", present - set(listed.values()))
    shards = {name: model_file(folder, name, CheckpointError) for name in sorted(set(listed.values()))}
    refuse_any(where, "shards that are missing", {name for name, path in shards.items() if not is_there(path)})
    files = {name: open_safetensors(path) for name, path in shards.items()}
    held = Counter(key for file in files.values() for key in file.tensors)
    refuse_any(where, "tensors in two shards", {key for key, times in held.items() if times > 1})
    refuse_any(where, "tensors that the index does not list", held.keys() - listed.keys())
    absent = {key for key, name in listed.items() if key not in files[name].tensors}
    refuse_any(where, "tensors that are not in the shard named for them", absent)
    holders = {key: files[name] for key, name in listed.items()}
    found = sum(file.tensors[key].end - file.tensors[key].start for key, file in holders.items())
    if said not in (None, found):  # no reason to refuse: transformers never reads it
        fault = f"the index says {said!r:.40} bytes of tensors, the files hold {found}; do they belong together?"
        warnings.warn(f"{where}: {fault}", OddWarning, stacklevel=3)
    return holders


def read_index(folder: Path) -> tuple[dict[str, str], Any]:
    """Read the ``weight_map`` of an index, the shard of each tensor, and its ``total_size``, None if it has none."""
    path = model_file(folder, INDEX, CheckpointError)
    index = read_json(path, CheckpointError)
    listed, metadata = index.get("weight_map"), index.get("metadata")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{path}: weight_map is {str(listed)[:80]!r}; want an object of tensor name to file name")
    return listed, metadata.get("total_size") if isinstance(metadata, dict) else None


def refuse_any(place: Path, fault: str, found: set[str]) -> None:
    """Raise if there is anything to complain of, naming the first ten."""
    if found:
        raise CheckpointError(f"{place}: {fault}: {some(found)}; download the model again")


def some(found: set[str], most: int = 10) -> str:
    """The first names of a set, as a reader can check them: quoted, with the number of the rest."""
    shown = ", ".join(f"{name!r:.120}" for name in sorted(found)[:most])
    return shown + (f" and {len(found) - most} more" if len(found) > most else "")
