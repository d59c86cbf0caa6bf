"""Small Hugging Face folders for tests, written byte by byte without the safetensors library."""

import json
import math
import struct

import numpy as np

from npgemma.base import elsewhere
from npgemma.base.tensors import schema
from npgemma.checkpoints.hf_config import parse_config

VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 12, "intermediate_size": 14, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 8, "patch_size": 4, "vision_use_head": False,
}
TEXT = {
    "vocab_size": 41, "hidden_size": 10, "intermediate_size": 22, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 4,
}
GEMMA_2 = {"query_pre_attn_scalar": 5, "sliding_window": 3}


def config_json(generation=1, vision=None, text=None, **top):
    """A ``config.json`` as an object; a value of None leaves its key out, DELIBERATE_NULL writes null."""
    texts = {1: {"model_type": "gemma"}, 2: {"model_type": "gemma2", **GEMMA_2}}
    values = {
        "model_type": "paligemma",
        "image_token_index": 40,
        "projection_dim": 10,
        "vision_config": without_none(VISION | (vision or {})),
        "text_config": without_none(TEXT | texts[generation] | (text or {})),
    }
    return without_none(values | top)


DELIBERATE_NULL = object()


def without_none(values):
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: None if value is DELIBERATE_NULL else value for key, value in kept.items()}


def tensors(generation=1, layout="A5", dtype="F32", seed=0):
    """Random tensors of a whole model under the keys of a layout: {key: (dtype, array)}; BF16 as uint16 bits."""
    cfg = parse_config(config_json(generation))
    rng = np.random.default_rng(seed)
    keys = elsewhere.keys(cfg, layout)
    made = {}
    for name, parameter in schema(cfg).items():
        shape = (12, 3, 4, 4) if name == "vision.patches.weight" else parameter.shape
        made[keys[name]] = (dtype, to_dtype(rng.normal(size=shape).astype(np.float32), dtype))
    return made


def to_dtype(array, dtype):
    """Cut float32 to a stored dtype; bfloat16 by dropping the low half."""
    if dtype == "BF16":
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    return array.astype({"F16": np.float16, "F32": np.float32}[dtype])


def header_of(named, start=0):
    """The header's object: {key: {dtype, shape, data_offsets}}."""
    header = {}
    for key, (dtype, array) in named.items():
        end = start + array.nbytes
        header[key] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    return header


def file_bytes(named, header=None):
    """A whole file; ``header`` (an object or bytes) replaces the true one."""
    header = header_of(named) if header is None else header
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(array.tobytes() for _, array in named.values())


def write_folder(folder, generation=1, layout="A5", dtype="F32", shards=1, config=None, named=None):
    """Write ``config.json`` and the weights, in ``shards`` files with an index if more than one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or config_json(generation)))
    named = tensors(generation, layout, dtype) if named is None else named
    if shards == 1:
        (folder / "model.safetensors").write_bytes(file_bytes(named))
        return folder
    weight_map, keys, each = {}, list(named), math.ceil(len(named) / shards)
    for n in range(shards):
        name = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: named[key] for key in keys[n * each : (n + 1) * each]}
        (folder / name).write_bytes(file_bytes(part))
        weight_map |= dict.fromkeys(part, name)
    write_index(folder, weight_map)
    return folder


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def read_index(folder):
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
