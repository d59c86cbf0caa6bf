"""The one table of names: npgemma's, PyTorch's in each layout that transformers ever saved, and big_vision's.

``{n}`` is a block's number.  Gemma 2 has two norms more than Gemma and gives one of Gemma's names,
``post_attention_layernorm``, to another norm.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from npgemma.base.weights import schema
from npgemma.config import Config


@dataclass(frozen=True)
class Layout:
    """What stands before a tensor's name in one generation of files, and the name of the output head."""

    seen_in: str
    vision: str
    connector: str
    text: str
    head: str


LAYOUTS = {
    "A": Layout(
        "files of the releases; transformers 4.41 to 4.51",
        "vision_tower.vision_model.", "multi_modal_projector.", "language_model.model.",
        "language_model.lm_head.weight",
    ),
    "A5": Layout(
        "files that transformers 5.x saves",
        "vision_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.weight",
    ),
    "B": Layout(
        "modules of transformers 4.52 to 4.57",
        "model.vision_tower.vision_model.", "model.multi_modal_projector.", "model.language_model.", "lm_head.weight",
    ),
    "C": Layout(
        "modules of transformers 5.x",
        "model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "lm_head.weight",
    ),
}

# npgemma's name: PyTorch's below the layout's prefix, big_vision's array (of its last axes, matrices transposed).
VISION = {
    "vision.patches.weight": ("embeddings.patch_embedding.weight", "img/embedding/kernel"),
    "vision.patches.bias": ("embeddings.patch_embedding.bias", "img/embedding/bias"),
    "vision.positions.weight": ("embeddings.position_embedding.weight", "img/pos_embedding[0]"),
    "vision.norm.weight": ("post_layernorm.weight", "img/Transformer/encoder_norm/scale"),
    "vision.norm.bias": ("post_layernorm.bias", "img/Transformer/encoder_norm/bias"),
}
VISION_BLOCK = {
    "attn_norm": ("layer_norm1", "LayerNorm_0", "scale"),
    "attn.q": ("self_attn.q_proj", "MultiHeadDotProductAttention_0/query", "kernel"),
    "attn.k": ("self_attn.k_proj", "MultiHeadDotProductAttention_0/key", "kernel"),
    "attn.v": ("self_attn.v_proj", "MultiHeadDotProductAttention_0/value", "kernel"),
    "attn.out": ("self_attn.out_proj", "MultiHeadDotProductAttention_0/out", "kernel"),
    "mlp_norm": ("layer_norm2", "LayerNorm_1", "scale"),
    "mlp.up": ("mlp.fc1", "MlpBlock_0/Dense_0", "kernel"),
    "mlp.out": ("mlp.fc2", "MlpBlock_0/Dense_1", "kernel"),
}
CONNECTOR = {
    "connector.out.weight": ("linear.weight", "img/head/kernel"),
    "connector.out.bias": ("linear.bias", "img/head/bias"),
}
TEXT = {
    "text.embedded.weight": ("embed_tokens.weight", "llm/embedder/input_embedding"),
    "text.norm.weight": ("norm.weight", "llm/final_norm/scale"),
}
TEXT_BLOCK = {
    "attn_norm": ("input_layernorm", "pre_attention_norm/scale[{n}]"),
    "attn.q": ("self_attn.q_proj", "attn/q_einsum/w[{n}]"),
    "attn.k": ("self_attn.k_proj", "attn/kv_einsum/w[{n},0]"),
    "attn.v": ("self_attn.v_proj", "attn/kv_einsum/w[{n},1]"),
    "attn.out": ("self_attn.o_proj", "attn/attn_vec_einsum/w[{n}]"),
    "mlp.gate": ("mlp.gate_proj", "mlp/gating_einsum[{n},0]"),
    "mlp.up": ("mlp.up_proj", "mlp/gating_einsum[{n},1]"),
    "mlp.out": ("mlp.down_proj", "mlp/linear[{n}]"),
}
GEMMA_NORMS = {"mlp_norm": ("post_attention_layernorm", "pre_ffw_norm/scale[{n}]")}
GEMMA_2_NORMS = {
    "attn_post_norm": ("post_attention_layernorm", "post_attention_norm/scale[{n}]"),
    "mlp_norm": ("pre_feedforward_layernorm", "pre_ffw_norm/scale[{n}]"),
    "mlp_post_norm": ("post_feedforward_layernorm", "post_ffw_norm/scale[{n}]"),
}


@dataclass(frozen=True)
class Names:
    """One weight's other names: PyTorch's below the prefix of its ``part`` of a layout, and big_vision's array."""

    part: str
    module: str
    big_vision: str

    def key(self, layout: Layout) -> str:
        """The name in one layout's files."""
        return getattr(layout, self.part) + self.module


def names(cfg: Config) -> dict[str, Names]:
    """Give every weight's other names, in the order of :func:`npgemma.base.weights.schema`."""
    found = {ours: Names("vision", *theirs) for ours, theirs in VISION.items()}
    found |= {ours: Names("connector", *theirs) for ours, theirs in CONNECTOR.items()}
    found |= {ours: Names("text", *theirs) for ours, theirs in TEXT.items()}
    for n in range(cfg.vision.depth):
        for place, (module, array, gain) in VISION_BLOCK.items():
            for kind, leaf in (("weight", gain), ("bias", "bias")):
                theirs = f"img/Transformer/encoderblock/{array}/{leaf}[{n}]"
                ours = f"vision.blocks.{n}.{place}.{kind}"
                found[ours] = Names("vision", f"encoder.layers.{n}.{module}.{kind}", theirs)
    for n in range(cfg.text.depth):
        for place, (module, array) in (TEXT_BLOCK | text_norms(cfg)).items():
            theirs = f"llm/layers/{array.format(n=n)}"
            found[f"text.blocks.{n}.{place}.weight"] = Names("text", f"layers.{n}.{module}.weight", theirs)
    return {ours: found[ours] for ours in schema(cfg)}


def text_norms(cfg: Config) -> dict[str, tuple[str, str]]:
    """The norms of a decoder's block whose names depend on the generation."""
    return GEMMA_2_NORMS if cfg.text.post_norms else GEMMA_NORMS


def keys(cfg: Config, layout: str) -> dict[str, str]:
    """Map npgemma's names to the keys of one layout: ``A``, ``A5``, ``B`` or ``C``."""
    return {ours: other.key(LAYOUTS[layout]) for ours, other in names(cfg).items()}


def ours_by_key(cfg: Config) -> dict[str, str]:
    """Map the keys of all layouts to npgemma's names."""
    return {other.key(layout): ours for ours, other in names(cfg).items() for layout in LAYOUTS.values()}


def layout_of(stored: Iterable[str], cfg: Config) -> str | None:
    """Name the first layout that has all the model's keys that are among ``stored``; None for a mixture."""
    known = set(stored) & ours_by_key(cfg).keys()
    return next((name for name in LAYOUTS if known <= set(keys(cfg, name).values())), None)
