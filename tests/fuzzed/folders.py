"""What lies in a model's folder: checkpoints, indexes, configurations, tokenizers."""

import gzip
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from fuzzed.target import GOLDEN, Target
from made_checkpoints import config_json, file_bytes, tensors, write_folder

from npgemma.base.elsewhere import keys
from npgemma.checkpoints.checkpoint import load_weights
from npgemma.checkpoints.hf_config import parse_config, read_config
from npgemma.config import Config
from npgemma.words.tokenizer import load_tokenizer


def checkpoints():
    return [file_bytes(tensors(generation, dtype=dtype)) for generation in (1, 2) for dtype in ("F32", "BF16")]


def run_checkpoint(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    generation = 2 if b"pre_feedforward" in data else 1
    (folder / "config.json").write_text(CONFIGS[generation])
    arrays = load_weights(folder, read_config(folder), allow_nonfinite=True)
    # Accepted: each byte of a weight stands in the file once, where its header says.
    header, body = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]), len(data) - 8
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    assert sum(end - start for start, end in spans) == body - int.from_bytes(data[:8], "little")
    assert len(arrays) <= len(spans) and all(not array.flags.writeable for array in arrays.values())


CONFIGS = {generation: json.dumps(config_json(generation)) for generation in (1, 2)}


def write_shards(folder):
    write_folder(folder, shards=2)


def run_index(folder, data):
    (folder / "model.safetensors.index.json").write_bytes(data)
    arrays = load_weights(folder, read_config(folder))
    assert [array.tobytes() for array in arrays.values()] == sharded_arrays()


@cache
def sharded_arrays():
    """The arrays of the sharded folder, as bytes in the schema's order; whatever index is accepted gives these."""
    named = tensors(1)
    return [named[key][1].tobytes() for key in keys(parse_config(config_json(1)), "A5").values()]


def indexes():
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), shards=2)
        return [(Path(folder) / "model.safetensors.index.json").read_bytes()]


def run_config(folder, data):
    (folder / "config.json").write_bytes(data)
    cfg = read_config(folder)
    assert isinstance(cfg, Config) and cfg.vision.num_patches >= 1 and cfg.text.num_heads % cfg.text.num_kv_heads == 0


def configs():
    released = [json.dumps(config_json(g, text={"rope_theta": 1e4, "layer_types": None})).encode() for g in (1, 2)]
    return [*released, (GOLDEN / "tiny-2" / "config.json").read_bytes()]


TEXTS = ("caption en", "a  b\n\n<loc0001>é🙂 ▁", "")


def run_tokenizer(name):
    def run(folder, data):
        (folder / name).write_bytes(data)
        tokenizer = load_tokenizer(folder)
        for text in TEXTS:
            ids = tokenizer.encode(text, "allow")
            assert all(0 <= token < tokenizer.vocab_size for token in ids)
            assert isinstance(tokenizer.decode(ids), str)

    return run


def tokenizer_models():
    return [(GOLDEN / "tokens" / "bare.model").read_bytes()]


@cache
def tokenizer_tables():
    """The smallest table that is a tokenizer: bytes, named tokens, a few merges."""
    root = json.loads(gzip.decompress((GOLDEN / "tokens" / "bare.tokenizer.json.gz").read_bytes()))
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{n:02X}>" for n in range(256)), "a", "b", "ab", "▁", "▁a"]
    root["model"]["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    root["model"]["merges"] = [["a", "b"], ["▁", "a"]]
    root["added_tokens"] = [
        entry | {"id": pieces.index(entry["content"])} for entry in root["added_tokens"] if entry["content"] in pieces
    ]
    return [json.dumps(root, ensure_ascii=False).encode()]


def listed_tokens():
    entry = {"content": "<x>", "special": False, "normalized": False, "lstrip": False}
    return [json.dumps({"added_tokens_decoder": {"563": entry}, "model_max_length": 10**30}).encode()]


TARGETS = {
    "checkpoints": Target(checkpoints, run_checkpoint, "safetensors"),
    "indexes": Target(indexes, run_index, "json", write_shards),
    "configs": Target(configs, run_config, "json"),
    "generation_configs": Target(
        lambda: [b'{"bos_token_id": 2, "eos_token_id": [1, 3], "pad_token_id": 0}'],
        lambda folder, data: (folder / "generation_config.json").write_bytes(data) and read_config(folder),
        "json",
        write_folder,
    ),
    "tokenizer_models": Target(tokenizer_models, run_tokenizer("tokenizer.model"), "message"),
    "tokenizer_tables": Target(tokenizer_tables, run_tokenizer("tokenizer.json"), "json"),
    "listed_tokens": Target(
        listed_tokens,
        run_tokenizer("tokenizer_config.json"),
        "json",
        lambda folder: shutil.copy(GOLDEN / "tokens" / "bare.model", folder / "tokenizer.model"),
    ),
}
