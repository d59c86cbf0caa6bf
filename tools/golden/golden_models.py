"""The two tiny models: awkward sizes, random weights, saved as Hugging Face checkpoints in bfloat16."""

import golden_inputs
import torch
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

MODELS = ("tiny-1", "tiny-2")
SEEDS = {"tiny-1": 1001, "tiny-2": 2002}


def config_of(name):
    """Configuration of ``tiny-1`` (PaliGemma 1) or ``tiny-2`` (PaliGemma 2).

    All sizes differ, so that a swapped axis cannot hide; eps is 0.1 and the caps are small, so that both show;
    the vision head is 72 as in the release, whose scale is no power of two.
    """
    return {"tiny-1": tiny_1, "tiny-2": tiny_2}[name]()


def vision_config(side, patch, mlp, depth):
    return SiglipVisionConfig(
        hidden_size=144,
        num_attention_heads=2,
        intermediate_size=mlp,
        num_hidden_layers=depth,
        image_size=side,
        patch_size=patch,
        layer_norm_eps=0.1,
        vision_use_head=False,
    )


def tiny_1():
    """K = 1, no caps, two norms a block; the image token lies beyond the vocabulary."""
    text = GemmaConfig(
        vocab_size=67,
        hidden_size=40,
        intermediate_size=58,
        num_hidden_layers=2,
        num_attention_heads=5,
        num_key_value_heads=1,
        head_dim=14,
        rms_norm_eps=0.1,
        max_position_embeddings=8192,
    )
    return PaliGemmaConfig(
        vision_config=vision_config(side=12, patch=4, mlp=90, depth=1),
        text_config=text,
        projection_dim=40,
        hidden_size=40,
        vocab_size=67,
        image_token_index=71,
    )


def tiny_2():
    """K = 3 and G = 2, both caps, four norms, three layers of both kinds; the image token lies in the vocabulary."""
    text = Gemma2Config(
        vocab_size=73,
        hidden_size=42,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=10,
        rms_norm_eps=0.1,
        max_position_embeddings=8192,
        query_pre_attn_scalar=7,
        sliding_window=5,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        attn_logit_softcapping=1.5,
        final_logit_softcapping=0.8,
    )
    return PaliGemmaConfig(
        vision_config=vision_config(side=10, patch=5, mlp=116, depth=2),
        text_config=text,
        projection_dim=42,
        hidden_size=42,
        vocab_size=73,
        image_token_index=70,
    )


def save_model(name, folder):
    """Write ``config.json`` and ``model.safetensors`` of the model ``name`` into ``folder``."""
    model = PaliGemmaForConditionalGeneration(config_of(name)).to(torch.bfloat16)
    with torch.no_grad():
        for number, (key, weight) in enumerate(sorted(model.named_parameters())):
            values = random_weight(key, tuple(weight.shape), SEEDS[name] + number)
            weight.copy_(torch.from_numpy(values))
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    (folder / "generation_config.json").unlink(missing_ok=True)


def random_weight(key, shape, seed):
    """Values of one parameter, all of them bfloat16 values.

    A wide embedding would make the tied head repeat its input for every prompt, so that a test of the greedy choice
    proved nothing; the other matrices nearly keep the size of what they multiply.
    """
    if "embed_tokens" in key:
        return golden_inputs.bell(seed, shape, spread=0.12)
    if "layer_norm" in key or "layernorm" in key:
        vision_gain = 1.0 if "vision_tower" in key and key.endswith("weight") else 0.0
        return golden_inputs.bell(seed, shape, spread=0.3, centre=vision_gain)
    if len(shape) == 1:
        return golden_inputs.bell(seed, shape, spread=0.3)
    if "position_embedding" in key:
        return golden_inputs.bell(seed, shape, spread=0.5)
    fan_in = 1
    for size in shape[1:]:
        fan_in *= size
    return golden_inputs.bell(seed, shape, spread=1.4 * fan_in**-0.5)
