"""Low-rank adapters in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors`` of a folder.

Not supported, and refused by name: adapters other than LoRA, DoRA, trained biases or whole modules, ranks and scales
that differ from matrix to matrix.  Reference: peft, tuners/lora/config.py and utils/save_and_load.py.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base import elsewhere, half
from npgemma.base.adapted import DOWN, NO_PRODUCT, UP
from npgemma.base.device import to_host
from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.tensors import schema
from npgemma.config import Config
from npgemma.files.folder import model_file
from npgemma.files.reader import read_json
from npgemma.files.safetensors_file import open_safetensors
from npgemma.files.safetensors_writer import write_safetensors
from npgemma.files.writer import write_file

SETTINGS, FACTORS = "adapter_config.json", "adapter_model.safetensors"
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(\.default)?\.weight")
# Fields of peft that change what is computed, with the values under which they do not.
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None), "fan_in_fan_out": (False, None), "lora_bias": (False, None), "bias": ("none", None),
    "modules_to_save": (None, []), "rank_pattern": ({}, None), "alpha_pattern": ({}, None),
    "trainable_token_indices": (None, []), "target_parameters": (None, []), "alora_invocation_tokens": (None, []),
}
BASE = "npgemma.base"


def read_adapter(folder: Path | str, cfg: Config, arrays: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], float]:
    """Read an adapter for a model.

    Parameters
    ----------
    folder : path
    cfg : Config
    arrays : mapping of str to array
        The base model's weights.

    Returns
    -------
    factors : dict of str to array
        ``NAME/down (r, D)`` and ``NAME/up (F, r)``, float32.
    scale : float

    Raises
    ------
    CheckpointError
        If the adapter is damaged, of a kind that is not supported, or of another base model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; want one with {SETTINGS}", argument="adapter")
    settings = read_json(model_file(folder, SETTINGS, CheckpointError), CheckpointError)
    scale = scale_of(folder / SETTINGS, settings)
    path = model_file(folder, FACTORS, CheckpointError)
    file = open_safetensors(path)
    made_on = file.metadata.get(BASE)
    if made_on not in (None, fingerprint(arrays)):
        raise CheckpointError(f"{path}: was trained on another base model than this one; give the one it belongs to")
    factors = {}
    for key in file.tensors:
        factors[our_name(path, key, cfg)] = np.array(half.widen(file.array(key)), dtype=np.float32)
    check_factors(path, factors, cfg, settings["r"])
    return factors, scale


def scale_of(path: Path, settings: Mapping[str, Any]) -> float:
    """Give alpha / r, or refuse settings that ask for more than a product beside a matrix."""
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {settings.get('peft_type')!r}; want 'LORA'")
    for name, plain in PLAIN.items():
        if settings.get(name) not in plain:
            came = f"{name} is {settings[name]!r:.80}"
            raise CheckpointError(f"{path}: {came}, which is not implemented; merge it in peft")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"{path}: r is {rank!r}, lora_alpha {alpha!r}; want a whole number from 1, and a number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def our_name(path: Path, key: str, cfg: Config) -> str:
    """Give npgemma's name of a factor, from a key of any generation of transformers."""
    found = KEY.fullmatch(key)
    ours = None if found is None else elsewhere.ours_by_key(cfg).get(f"{found[1]}.weight")
    if found is None or ours is None or ours in NO_PRODUCT or not schema(cfg)[ours].matrix:
        raise CheckpointError(f"{path}: {key} belongs to no matrix of this model; was it trained on another base?")
    return f"{ours}/{DOWN if found[2] == 'A' else UP}"


def check_factors(path: Path, factors: Mapping[str, np.ndarray], cfg: Config, rank: int) -> None:
    """Refuse an adapter without factors, a factor without its other, a wrong shape, NaN."""
    if not factors:
        raise CheckpointError(f"{path}: holds no factors; want lora_A and lora_B of some matrices")
    for name, factor in factors.items():
        matrix, _, which = name.rpartition("/")
        F, D = schema(cfg)[matrix].shape
        wanted = (rank, D) if which == DOWN else (F, rank)
        if factor.shape != wanted:
            came = f"{name} is {factor.shape}, this model wants {wanted}"
            raise CheckpointError(f"{path}: {came}; is it of another base?")
        if f"{matrix}/{UP if which == DOWN else DOWN}" not in factors:
            raise CheckpointError(f"{path}: {name} comes without its other factor; the file is damaged")
        if not np.all(np.isfinite(factor)):
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; train it again with a lower rate")


def write_adapter(
    folder: Path, cfg: Config, factors: Mapping[str, np.ndarray], rank: int, alpha: float, base: str, mark: str
) -> None:
    """Write an adapter as peft does, for modules named as in transformers 5.

    Parameters
    ----------
    folder : Path
        Exists; files of an earlier adapter are replaced.
    base : str
        How the base model is called.
    mark : str
        :func:`fingerprint` of its weights.
    """
    keys = elsewhere.keys(cfg, "C")
    modules: dict[str, None] = {}
    stored = {}
    for name, factor in factors.items():
        matrix, _, which = name.rpartition("/")
        module = keys[matrix].removesuffix(".weight")
        modules[module] = None
        stored[f"base_model.model.{module}.lora_{'A' if which == DOWN else 'B'}.weight"] = factor
    settings = {
        "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": True, "lora_alpha": alpha, "lora_dropout": 0.0, "modules_to_save": None,
        "peft_type": "LORA", "r": rank, "rank_pattern": {}, "alpha_pattern": {}, "target_modules": list(modules),
        "task_type": None, "use_dora": False, "use_rslora": False,
    }
    write_safetensors(folder / FACTORS, stored, {"format": "pt", BASE: mark}, force=True)
    write_file(folder / SETTINGS, (json.dumps(settings, indent=2) + "\n").encode(), force=True)


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """Tell one base model from another by its vectors, which are small and the same in every dtype of loading."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        if not name.endswith(".weight") or "norm" in name:
            digest.update(name.encode() + to_host(arrays[name]).astype("<f4").tobytes())
    return digest.hexdigest()
