"""Write the names and shapes of PaliGemma's tensors, as the installed transformers has and saves them.

    python tools/golden/export_key_lists.py tests/checkpoints/key_lists.json

adds this version's lists to the file.  The names of modules changed twice, so three versions tell all of them: 4.49.0,
4.55.4 and 5.23.0.  The tiny models are listed in full, with shapes; of the released sizes the file keeps the number of
names and the SHA-256 of the sorted names, a line each.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import transformers
from safetensors import safe_open
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

SMALL_VISION = {
    "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 28,
    "patch_size": 14, "vision_use_head": False,
}
SMALL_TEXT = {
    "vocab_size": 300, "hidden_size": 24, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}
# Names depend on the number of blocks only, so the released sizes need none of their widths.
DECODERS = {
    "tiny-1": (GemmaConfig, 2, 2),
    "tiny-2": (Gemma2Config, 2, 2),
    "paligemma-3b": (GemmaConfig, 18, 27),
    "paligemma2-3b": (Gemma2Config, 26, 27),
    "paligemma2-10b": (Gemma2Config, 42, 27),
    "paligemma2-28b": (Gemma2Config, 46, 27),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    lists = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, (kind, text_depth, vision_depth) in DECODERS.items():
        model = build(kind, text_depth, vision_depth)
        modules = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        version = f"transformers {transformers.__version__}"
        lists.setdefault(f"{version}, modules", {})[name] = entry(name, modules)
        lists.setdefault(f"{version}, files", {})[name] = entry(name, saved(model))
    path.write_text(json.dumps(lists, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def build(kind, text_depth, vision_depth):
    """A model of random weights, small but for its number of blocks."""
    text = kind(**SMALL_TEXT | {"num_hidden_layers": text_depth})
    vision = SiglipVisionConfig(**SMALL_VISION | {"num_hidden_layers": vision_depth})
    return PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(vision_config=vision, text_config=text, projection_dim=24, image_token_index=299)
    )


def saved(model):
    """Names and shapes in the file that ``save_pretrained`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "numpy") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no dict)


def entry(name, shapes):
    """The whole list of a tiny model; number and hash of a released one."""
    if name.startswith("tiny"):
        return {key: " ".join(map(str, shape)) for key, shape in sorted(shapes.items())}
    lines = "\n".join(sorted(shapes))
    return {"count": len(shapes), "sha256": hashlib.sha256(lines.encode()).hexdigest()}


if __name__ == "__main__":
    main()
