"""What a tensor is called elsewhere: in PyTorch (three layouts of modules), big_vision, GGUF and gemma.cpp.

Names of weights come from the one table, :mod:`npgemma.checkpoints.key_map`; a tensor that no module gives as it is
has the module it is found in, and how.  GGUF and gemma.cpp name weights only, so a tensor there goes by the weight that
makes it.
"""

import re
from dataclasses import dataclass
from functools import cache

from npgemma.checkpoints import key_map
from npgemma.config import Config

OUTPUT, INPUT, INSIDE = "output", "input", "inside"

# The layouts of modules in memory, by version of transformers.
LAYOUTS = {"4.41-4.51": "A", "4.52-4.57": "B", "5.x": "C"}

# Tensors that a module with weights of its own does not give: PyTorch's module below the block, what of it, and
# big_vision's module below the block.
VISION_BLOCK = {
    "attn.scores": ("self_attn", f"{INSIDE}: query @ key^T * scale", "MultiHeadDotProductAttention_0"),
    "attn.probs": ("self_attn", f"second {OUTPUT}, with eager attention", "MultiHeadDotProductAttention_0"),
    "attn.mixed": ("self_attn.out_proj", INPUT, "MultiHeadDotProductAttention_0/out"),
    "middle": ("layer_norm2", INPUT, "LayerNorm_1"),
    "mlp.hidden": ("mlp.activation_fn", OUTPUT, "MlpBlock_0/Dense_1"),
    "out": ("", OUTPUT, ""),
}
TEXT_BLOCK = {
    "attn.q_rot": ("self_attn", f"{INSIDE}: apply_rotary_pos_emb, first result", "attn"),
    "attn.k_rot": ("self_attn", f"{INSIDE}: apply_rotary_pos_emb, second result", "attn"),
    "attn.scores": ("self_attn", f"{INSIDE}: query @ key^T * scaling", "attn"),
    "attn.capped": ("self_attn", f"{INSIDE}: scores after attn_logit_softcapping", "attn"),
    "attn.probs": ("self_attn", f"second {OUTPUT}, with eager attention", "attn"),
    "attn.mixed": ("self_attn.o_proj", INPUT, "attn/attn_vec_einsum"),
    "middle": ("{mlp_norm}", INPUT, "pre_ffw_norm"),
    "mlp.opened": ("mlp.act_fn", OUTPUT, "mlp"),
    "mlp.hidden": ("mlp.down_proj", INPUT, "mlp"),
    "out": ("", OUTPUT, ""),
}
# The same for the whole model: part of the layout, module below it, what of it, big_vision.
SINGLE = {
    "pixels": ("model", "", f"{INPUT} pixel_values, channels first", "image"),
    "vision.embedded": ("vision", "embeddings", OUTPUT, "img"),
    "ids": ("model", "", f"{INPUT} input_ids", "text, behind the image"),
    "text.spliced": ("text", "", f"{INPUT} inputs_embeds; before 5.x still without the factor sqrt(D)", "llm"),
    "positions": ("text", "", f"{INPUT} position_ids", "llm"),
    "mask.full": ("text", "layers.0", f"{INPUT} attention_mask: 0 where True, else the lowest float", "llm"),
    "mask.sliding": ("text", "layers.0", f"{INPUT} attention_mask: 0 where True, else the lowest float", "llm"),
    "text.cos": ("text", "rotary_emb", f"first {OUTPUT}, which holds each value twice", "llm/layers/attn"),
    "text.sin": ("text", "rotary_emb", f"second {OUTPUT}, which holds each value twice", "llm/layers/attn"),
    "text.logits": ("head", "", OUTPUT, "llm/embedder"),
}
# The weight that makes a tensor: in GGUF, and in gemma.cpp.
VISION_FILES = {
    "attn_norm": ("ln1", "ln_0_scale"),
    "attn.q": ("attn_q", "qkv_ein_w"),
    "attn.k": ("attn_k", "qkv_ein_w"),
    "attn.v": ("attn_v", "qkv_ein_w"),
    "attn.out": ("attn_out", "attn_out_w"),
    "mlp_norm": ("ln2", "ln_1_scale"),
    "mlp.up": ("ffn_up", "linear_0_w"),
    "mlp.out": ("ffn_down", "linear_1_w"),
}
TEXT_FILES = {
    "attn_norm": ("attn_norm", "pre_att_ns"),
    "attn.q": ("attn_q", "qkv_ein"),
    "attn.k": ("attn_k", "qkv_ein"),
    "attn.v": ("attn_v", "qkv_ein"),
    "attn.out": ("attn_output", "att_ein"),
    "attn_post_norm": ("post_attention_norm", "post_att_ns"),
    "mlp_norm": ("ffn_norm", "pre_ff_ns"),
    "mlp.gate": ("ffn_gate", "gating_ein"),
    "mlp.up": ("ffn_up", "gating_ein"),
    "mlp.out": ("ffn_down", "linear_w"),
    "mlp_post_norm": ("post_ffw_norm", "post_ff_ns"),
}
SINGLE_FILES = {
    "vision.patches": ("v.patch_embd", "img_emb_kernel"),
    "vision.embedded": ("v.position_embd", "img_pos_emb"),
    "vision.norm": ("v.post_ln", "enc_norm_scale"),
    "connector.out": ("", "img_head_kernel"),
    "text.embedded": ("token_embd", "c_embedding"),
    "text.norm": ("output_norm", "c_final_norm"),
    "text.logits": ("token_embd", "c_embedding"),
}
# Outputs of modules that differ from npgemma's tensor by more than rounding.
DIFFERENT = {"text.embedded": f"{OUTPUT}; before 5.x without the factor sqrt(D)"}


@dataclass(frozen=True)
class Elsewhere:
    """One tensor's other names; an empty string where there is none.

    Parameters
    ----------
    modules : dict of str to str
        PyTorch's module, by version of transformers.
    which : str
        What of the module: its output, its input, or inside.
    big_vision : str
        The weight's array, or the module.
    gguf, gemma_cpp : str
        The weight that makes the tensor.
    """

    modules: dict[str, str]
    which: str
    big_vision: str
    gguf: str
    gemma_cpp: str


def elsewhere(name: str, cfg: Config) -> Elsewhere:
    """Give the other names of one of npgemma's tensors (:func:`npgemma.tracing.names.tensors`)."""
    weight = weights_of(cfg).get(f"{name}.weight")
    if weight is not None:
        modules = {version: weight.key(key_map.LAYOUTS[layout]) for version, layout in LAYOUTS.items()}
        modules = {version: key.removesuffix(".weight") for version, key in modules.items()}
        return Elsewhere(modules, DIFFERENT.get(name, OUTPUT), weight.big_vision, *in_files(name))
    part, module, which, big_vision = found_in(name, cfg)
    modules = {version: place(layout, part, module) for version, layout in LAYOUTS.items()}
    return Elsewhere(modules, which, big_vision, *in_files(name))


@cache
def weights_of(cfg: Config) -> dict[str, key_map.Names]:
    """The table of weights, made once a configuration."""
    return key_map.names(cfg)


def found_in(name: str, cfg: Config) -> tuple[str, str, str, str]:
    """Where a tensor without a weight of its own is: part of a layout, module, what of it, big_vision."""
    if name in SINGLE:
        return SINGLE[name]
    tower, number, below = in_block(name)
    if tower == "vision":
        module, which, array = VISION_BLOCK[below]
        module, layers, scanned = module, f"encoder.layers.{number}", f"img/Transformer/encoderblock/{array}"
    else:
        module, which, array = TEXT_BLOCK[below]
        module = module.format(mlp_norm=key_map.text_norms(cfg)["mlp_norm"][0])
        layers, scanned = f"layers.{number}", f"llm/layers/{array}"
    return tower, f"{layers}.{module}".rstrip("."), which, f"{scanned.rstrip('/')}[{number}]"


def in_block(name: str) -> tuple[str, str, str]:
    """Split ``text.blocks.3.attn.q`` into tower, number and the name in the block; empty outside the blocks."""
    parts = re.fullmatch(r"(vision|text)\.blocks\.(\d+)\.(.+)", name)
    return (parts[1], parts[2], parts[3]) if parts else ("", "", name)


def place(layout: str, part: str, module: str) -> str:
    """The full path of a module in one layout."""
    found = key_map.LAYOUTS[layout]
    if part == "model":
        return "(the whole model)"
    root = found.head.removesuffix(".weight") if part == "head" else getattr(found, part)
    return f"{root}{module}".rstrip(".")


def in_files(name: str) -> tuple[str, str]:
    """The weight that makes a tensor, in GGUF and in gemma.cpp."""
    tower, number, below = in_block(name)
    if not tower:
        return SINGLE_FILES.get(name, ("", ""))
    table, prefix = (VISION_FILES, "v.blk") if tower == "vision" else (TEXT_FILES, "blk")
    if below not in table:
        return "", ""
    gguf, gemma_cpp = table[below]
    return f"{prefix}.{number}.{gguf}", f"{gemma_cpp}_{number}"
