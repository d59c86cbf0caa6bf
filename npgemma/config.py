"""What a PaliGemma is made of, as three frozen records, and the table of every released variant.

Layers read capabilities (``post_norms``, ``attn_softcap``, ``layer_windows``), never a model's name.  Letters: R image
side, P patches, C vision width, D text width, N query heads, K key/value heads, H head size, F MLP width, V vocabulary
rows.  Reading a ``config.json`` is :mod:`npgemma.checkpoints.hf_config`.
"""

import math
from dataclasses import dataclass

from npgemma.base.errors import ConfigError


@dataclass(frozen=True)
class Conventions:
    """Choices on which published implementations disagree, and the name of the set.

    Parameters
    ----------
    name : str
        ``hf-5``: transformers 5.23.0, the reference of every golden.
    first_position : int
        Position of a row's first token: 1 (Hugging Face) or 0 (big_vision).  Rotation is relative, so the two differ
        in rounding and in the rotated keys, not in meaning.
    """

    name: str = "hf-5"
    first_position: int = 1

    def __post_init__(self) -> None:
        if self.name != "hf-5":
            raise NotImplementedError(f"conventions: {self.name!r} is not implemented; only 'hf-5' is")
        if self.first_position not in (0, 1):
            raise NotImplementedError(f"conventions: first_position {self.first_position}; only 0 and 1 exist")


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower: a vision transformer without class token and without pooling head.

    ``image_size`` R and ``patch_size`` are in pixels; ``norm_eps`` is added to the variance inside the root.
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_width: int
    norm_eps: float

    @property
    def num_patches(self) -> int:
        """P, the number of patches, and so of image tokens, of one picture."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_kv_heads(self) -> int:
        return self.num_heads

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def query_scale(self) -> float:
        return self.head_dim**-0.5


@dataclass(frozen=True)
class TextConfig:
    """A Gemma or Gemma 2 decoder.

    Parameters
    ----------
    query_pre_attn_scalar : float
        Scores are divided by its root.  The head size, except in PaliGemma 2 28B (144, where H is 128).
    attn_softcap, final_softcap : float or None
        Bound of ``cap * tanh(x / cap)`` on scores and on logits; None leaves them as they are.
    layer_windows : tuple of (int or None)
        One entry a block: how many tokens back a suffix token looks, itself included; None is all of them.
    post_norms : bool
        Whether each branch is normalised again before it is added to the residual (Gemma 2).
    max_positions : int
        Trained context: positions beyond it are refused.
    """

    vocab_size: int
    width: int
    depth: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    rope_theta: float
    query_pre_attn_scalar: float
    attn_softcap: float | None
    final_softcap: float | None
    layer_windows: tuple[int | None, ...]
    post_norms: bool
    max_positions: int = 8192

    def __post_init__(self) -> None:
        if len(self.layer_windows) != self.depth:
            raise ConfigError(f"text: {len(self.layer_windows)} layer windows, {self.depth} blocks; want one a block")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"text: {self.num_heads} query heads cannot share {self.num_kv_heads} key/value heads; want a multiple"
            )
        if len(set(self.layer_windows) - {None}) > 1:
            raise NotImplementedError(f"text: several window sizes, {self.layer_windows}; only one is implemented")

    @property
    def query_scale(self) -> float:
        return self.query_pre_attn_scalar**-0.5

    @property
    def embed_scale(self) -> float:
        """What embeddings are multiplied with, before the precision rounds it."""
        return math.sqrt(self.width)

    @property
    def sliding_window(self) -> int | None:
        """The one window size that sliding blocks share, or None where no block slides."""
        return next((window for window in self.layer_windows if window is not None), None)


@dataclass(frozen=True)
class Config:
    """A whole PaliGemma: two towers, the id that stands for an image token, and the ids around a prompt."""

    vision: VisionConfig
    text: TextConfig
    image_token_id: int
    pad_id: int = 0
    bos_id: int = 2
    eos_ids: tuple[int, ...] = (1,)
    conventions: Conventions = Conventions()


def alternating_windows(depth: int, window: int) -> tuple[int | None, ...]:
    """Gemma 2's layout: even blocks slide, odd blocks see everything."""
    return tuple(None if index % 2 else window for index in range(depth))


def so400m(image_size: int) -> VisionConfig:
    """SigLIP-So400m/14, the tower of every released PaliGemma (Zhai et al. 2023; Alabdulmohsin et al. 2023)."""
    return VisionConfig(image_size, 14, width=1152, depth=27, num_heads=16, mlp_width=4304, norm_eps=1e-6)


def gemma_2b() -> TextConfig:
    """Gemma 2B, the decoder of PaliGemma 1 (Beyer et al. 2024)."""
    return TextConfig(
        vocab_size=257152, width=2048, depth=18, num_heads=8, num_kv_heads=1, head_dim=256, mlp_width=16384,
        norm_eps=1e-6, rope_theta=10000.0, query_pre_attn_scalar=256, attn_softcap=None, final_softcap=None,
        layer_windows=(None,) * 18, post_norms=False,
    )


def gemma_2(width, depth, num_heads, num_kv_heads, head_dim, mlp_width, query_pre_attn_scalar) -> TextConfig:
    """A Gemma 2 decoder, of PaliGemma 2 (Steiner et al. 2024, table 1)."""
    return TextConfig(
        vocab_size=257152, width=width, depth=depth, num_heads=num_heads, num_kv_heads=num_kv_heads,
        head_dim=head_dim, mlp_width=mlp_width, norm_eps=1e-6, rope_theta=10000.0,
        query_pre_attn_scalar=query_pre_attn_scalar, attn_softcap=50.0, final_softcap=30.0,
        layer_windows=alternating_windows(depth, 4096), post_norms=True,
    )


DECODERS = {
    "paligemma-3b": gemma_2b(),
    "paligemma2-3b": gemma_2(2304, 26, 8, 4, 256, 9216, query_pre_attn_scalar=256),
    "paligemma2-10b": gemma_2(3584, 42, 16, 8, 256, 14336, query_pre_attn_scalar=256),
    "paligemma2-28b": gemma_2(4608, 46, 32, 16, 128, 36864, query_pre_attn_scalar=144),
}

# The twelve released variants: `paligemma2-10b-448` and so on.  Hugging Face pads the 257152 rows to 257216.
VARIANTS = {
    f"{name}-{image_size}": Config(so400m(image_size), decoder, image_token_id=257152)
    for name, decoder in DECODERS.items()
    for image_size in (224, 448, 896)
}
