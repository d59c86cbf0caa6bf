"""Writing a trained model as a Hugging Face folder, as transformers saves and loads it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base import elsewhere
from npgemma.base.errors import ConfigError
from npgemma.config import Config
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there, read_file, read_json
from npgemma.files.safetensors_writer import write_safetensors
from npgemma.files.writer import write_file

WEIGHTS = "model.safetensors"
# What makes a folder whole besides weights and config.json; each is copied where the base has it.
BESIDE = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.model", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json",
)
LARGEST = 2**28  # bytes of one of them


def write_model(
    folder: Path, base: Path, cfg: Config, arrays: Mapping[str, Any],
    progress: Callable[[int, int], Any] | None = None,
) -> None:
    """Write weights, and all that loads them, into a folder that exists.

    Parameters
    ----------
    folder, base : Path
        The base model's folder gives the configuration, the tokenizer and the preprocessor.
    cfg : Config
    arrays : mapping of str to array
        Floats, or 16-bit as stored.
    progress : callable, optional
        ``progress(bytes done, bytes)``

    Raises
    ------
    OutputError
        If something cannot be written; what was there before stays.
    """
    keys = elsewhere.keys(cfg, "A5")
    stored = {keys[name]: np.asarray(arrays[name]) for name in keys}
    kernel = keys["vision.patches.weight"]
    patch = cfg.vision.patch_size
    stored[kernel] = stored[kernel].reshape(-1, 3, patch, patch)  # a convolution there
    write_safetensors(folder / WEIGHTS, stored, {"format": "pt"}, force=True, progress=progress)
    dtype = "bfloat16" if all(array.dtype == np.uint16 for array in stored.values()) else "float32"
    settings = read_json(model_file(base, "config.json", ConfigError), ConfigError)
    settings = {key: value for key, value in settings.items() if key != "torch_dtype"} | {"dtype": dtype}
    write_file(folder / "config.json", (json.dumps(settings, indent=2) + "\n").encode(), force=True)
    for name in BESIDE:
        if is_there(base / name):
            write_file(folder / name, read_file(model_file(base, name, ConfigError), LARGEST, ConfigError), force=True)
