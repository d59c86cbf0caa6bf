"""The four precisions in which transformers is made to speak: what is patched for each, and why.

``float32`` and ``bf16-hf-eager`` are transformers as it is. ``float64`` needs every silent float32 step widened.
``bf16-f32-inside`` is no mode of transformers: rotation, scores, soft-cap and head work in float32 between roundings.
"""

import contextlib
from unittest import mock

import torch
from torch import nn
from torch.nn import functional
from transformers import PaliGemmaForConditionalGeneration
from transformers.models.gemma import modeling_gemma
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.siglip import modeling_siglip

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bf16-hf-eager": torch.bfloat16,
    "bf16-f32-inside": torch.bfloat16,
}
ROTARY_CLASSES = (modeling_gemma.GemmaRotaryEmbedding, modeling_gemma2.Gemma2RotaryEmbedding)
ATTENTION_MODULES = (modeling_siglip, modeling_gemma, modeling_gemma2)


def load(folder, precision):
    """transformers' PaliGemma from ``folder`` with eager attention, in the dtype of ``precision``."""
    # The loader, unlike `.to(bfloat16)`, leaves the inverse frequencies of the rotary embedding in float32.
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=DTYPES[precision], attn_implementation="eager"
    ).eval()
    if precision == "float64":
        embed = model.model.language_model.embed_tokens
        # The buffer is born in float32; widening it would keep its rounding.
        embed.embed_scale = torch.tensor(embed.scalar_embed_scale, dtype=torch.float64)
    return model


@contextlib.contextmanager
def patched(precision):
    """While this is open, transformers computes as ``precision`` says."""
    with contextlib.ExitStack() as stack:
        if precision == "float64":
            stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
            stack.enter_context(mock.patch.object(functional, "softmax", softmax_in_its_own_dtype))
            replace_everywhere(stack, ROTARY_CLASSES, "forward", angles_in_float64)
        if precision == "bf16-f32-inside":
            replace_everywhere(stack, ROTARY_CLASSES, "forward", angles_in_float32)
            replace_everywhere(stack, ATTENTION_MODULES[1:], "apply_rotary_pos_emb", rotate_in_float32)
            replace_everywhere(stack, ATTENTION_MODULES, "eager_attention_forward", attend_in_float32)
        yield


def replace_everywhere(stack, places, name, replacement):
    for place in places:
        stack.enter_context(mock.patch.object(place, name, replacement))


plain_softmax = functional.softmax


def softmax_in_its_own_dtype(x, dim=None, _stacklevel=3, dtype=None):
    """Softmax that ignores the float32 that the attention asks for."""
    return plain_softmax(x, dim=dim)


def angles_in_float64(rotary, x, position_ids):
    """Cosines and sines, (B, T, H), with frequencies born in float64."""
    config = rotary.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    steps = torch.arange(0, head, 2, dtype=torch.float64) / head
    inverse_frequency = 1.0 / config.rope_parameters["rope_theta"] ** steps
    angles = position_ids[..., None].to(torch.float64) * inverse_frequency
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def angles_in_float32(rotary, x, position_ids):
    """Cosines and sines, (B, T, H), left in float32 where transformers casts them to bfloat16."""
    angles = position_ids[..., None].to(torch.float32) * rotary.inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate_in_float32(q, k, cos, sin, unsqueeze_dim=1):
    """Rotated queries and keys, each rounded once."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    rotated = []
    for x in (q, k):
        wide = x.to(torch.float32)
        rotated.append((wide * cos + modeling_gemma.rotate_half(wide) * sin).to(x.dtype))
    return tuple(rotated)


def attend_in_float32(module, query, key, value, attention_mask, dropout=0.0, scaling=None, softcap=None, **_):
    """Eager attention with one rounding at each named tensor: scores, capped, probs, mixed."""
    scores = scaled_scores(query, key, scaling, torch.float32)
    probs = probabilities(capped_scores(scores, softcap, torch.float32), attention_mask)
    return mixed_values(probs, value), probs


# ---- the steps of transformers' eager attention; `inside` is the dtype between two named tensors, None = the query's


def scaled_scores(query, key, scaling, inside=None):
    """Scores, (B, N, T, S), of queries (B, N, T, H) and keys (B, K, S, H)."""
    inside = inside or query.dtype
    keys = modeling_gemma.repeat_kv(key, query.shape[1] // key.shape[1])
    product = torch.matmul(query.to(inside), keys.transpose(2, 3).to(inside))
    return (product * scaling).to(query.dtype)


def capped_scores(scores, softcap, inside=None):
    """Scores bounded to (-softcap, softcap), or as they are where there is no cap."""
    if softcap is None:
        return scores
    return (torch.tanh(scores.to(inside or scores.dtype) / softcap) * softcap).to(scores.dtype)


def probabilities(capped, attention_mask):
    """Softmax over keys, computed in float32 whatever the dtype."""
    masked = capped if attention_mask is None else capped + attention_mask
    return functional.softmax(masked, dim=-1, dtype=torch.float32).to(capped.dtype)


def mixed_values(probs, value):
    """Values (B, K, S, H) mixed by probabilities (B, N, T, S): (B, T, N, H)."""
    values = modeling_gemma.repeat_kv(value, probs.shape[1] // value.shape[1])
    return torch.matmul(probs, values).transpose(1, 2).contiguous()


class HeadInFloat32(nn.Module):
    """The tied head whose logits stay in float32, so that the final soft-cap rounds once, at its end."""

    def __init__(self, head):
        super().__init__()
        self.weight = head.weight

    def forward(self, hidden):
        return functional.linear(hidden.to(torch.float32), self.weight.to(torch.float32))
