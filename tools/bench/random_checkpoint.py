"""Write a random PaliGemma of any released size in the layout of the releases: bfloat16, sharded, config.json.

    python tools/bench/random_checkpoint.py paligemma-3b-224 --folder /big/disk
    python tools/bench/random_checkpoint.py paligemma-3b-224 --blocks 4         the first blocks of each tower only

Weights are sized so that activations neither die nor explode; its answers mean nothing.  Needs npgemma and NumPy alone.
"""

import argparse
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from npgemma.base.elsewhere import keys
from npgemma.base.precision import round_bf16
from npgemma.base.tensors import schema
from npgemma.config import VARIANTS

SHARD_BYTES = 4 << 30
# Hugging Face pads the embedding table of the releases to this many rows.
PADDED_ROWS = 257216
# Rows of random numbers made at a time: 64 MB.
NUMBERS_AT_ONCE = 1 << 24


def default_folder():
    """Where full-size checkpoints are kept: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "npgemma" / "full-size"


def ensure_checkpoint(variant, parent, blocks=None, tell=print):
    """Give the folder of a variant's random checkpoint, of so many blocks a tower, or all; it is written if absent.

    Raises
    ------
    SystemExit
        If the disk has too little room.
    """
    folder = Path(parent) / (variant if blocks is None else f"{variant}-{blocks}-blocks")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    cfg = VARIANTS[variant] if blocks is None else shortened(VARIANTS[variant], blocks)
    tensors = list(stored_tensors(cfg))
    needed = sum(2 * math.prod(shape) for _, shape in tensors)
    free = shutil.disk_usage(folder).free
    if needed + (1 << 30) > free:
        raise SystemExit(f"{folder}: {variant} takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; use --folder")
    (folder / "config.json").write_text(json.dumps(hf_config(cfg), indent=1))
    rng = np.random.default_rng(0)
    weight_map = {}
    shards = deal(tensors)
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tell(f"writing {folder / name}")
        write_shard(folder / name, shard, rng)
        weight_map |= {key: name for key, _ in shard}
    # Written last: a checkpoint that has an index is whole.
    index.write_text(json.dumps({"metadata": {"total_size": needed}, "weight_map": weight_map}, indent=1))
    return folder


def shortened(cfg, blocks):
    """A model with matrices of the same sizes, but of ``blocks`` blocks a tower."""
    text = replace(cfg.text, depth=blocks, layer_windows=cfg.text.layer_windows[:blocks])
    return replace(cfg, vision=replace(cfg.vision, depth=blocks), text=text)


def stored_tensors(cfg):
    """Keys and shapes as on disk: the kernel of the patches has four axes, the table its padding rows."""
    on_disk = keys(cfg, "A")
    for name, parameter in schema(cfg).items():
        shape = parameter.shape
        if name == "vision.patches.weight":
            shape = (shape[0], 3, cfg.vision.patch_size, cfg.vision.patch_size)
        if name == "text.embedded.weight":
            shape = (PADDED_ROWS, shape[1])
        yield on_disk[name], shape


def deal(tensors):
    """Deal tensors out in order, so that a shard stays below :data:`SHARD_BYTES`."""
    shards, size = [[]], 0
    for key, shape in tensors:
        if shards[-1] and size + 2 * math.prod(shape) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((key, shape))
        size += 2 * math.prod(shape)
    return shards


def write_shard(path, tensors, rng):
    """Write one safetensors file, one piece of a tensor at a time."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, shape in tensors:
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key, shape in tensors:
            for count in pieces(math.prod(shape)):
                numbers = rng.standard_normal(count, dtype=np.float32) * np.float32(spread(key, shape)) + offset(key)
                file.write((round_bf16(numbers).view(np.uint32) >> 16).astype("<u2").tobytes())


def pieces(count):
    """Cut a count into parts of at most :data:`NUMBERS_AT_ONCE`."""
    while count:
        part = min(count, NUMBERS_AT_ONCE)
        yield part
        count -= part


def spread(key, shape):
    """Standard deviation of a tensor's numbers."""
    if len(shape) == 1:
        return 0.1
    return 0.02 if "embed_tokens" in key or "position" in key else 1.0 / math.sqrt(math.prod(shape[1:]))


def offset(key):
    """Mean of a tensor's numbers: LayerNorm's gain is around one, Gemma's norm stores the offset from one."""
    is_gain = "vision_tower" in key and "norm" in key and key.endswith("weight")
    return np.float32(1.0 if is_gain else 0.0)


def hf_config(cfg):
    """What config.json of a release says, for our record."""
    vision, text = cfg.vision, cfg.text
    decoder = {
        "model_type": "gemma2" if text.post_norms else "gemma", "vocab_size": PADDED_ROWS, "hidden_size": text.width,
        "intermediate_size": text.mlp_width, "num_hidden_layers": text.depth, "num_attention_heads": text.num_heads,
        "num_key_value_heads": text.num_kv_heads, "head_dim": text.head_dim,
        "num_image_tokens": vision.num_patches,
    }
    if text.post_norms:
        decoder |= {
            "query_pre_attn_scalar": int(text.query_pre_attn_scalar), "attn_logit_softcapping": text.attn_softcap,
            "final_logit_softcapping": text.final_softcap, "sliding_window": text.sliding_window,
            "hidden_activation": "gelu_pytorch_tanh",
        }
    tower = {
        "model_type": "siglip_vision_model", "hidden_size": vision.width, "intermediate_size": vision.mlp_width,
        "num_hidden_layers": vision.depth, "num_attention_heads": vision.num_heads, "patch_size": vision.patch_size,
        "image_size": vision.image_size, "projection_dim": text.width, "vision_use_head": False,
    }
    return {
        "architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma", "torch_dtype": "bfloat16",
        "image_token_index": cfg.image_token_id, "projection_dim": text.width, "hidden_size": text.width,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "text_config": decoder, "vision_config": tower,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where checkpoints are kept")
    parser.add_argument("--blocks", type=int, help="so many blocks a tower instead of all")
    arguments = parser.parse_args()
    print(ensure_checkpoint(arguments.variant, arguments.folder, arguments.blocks))


if __name__ == "__main__":
    main()
