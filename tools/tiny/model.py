"""The architecture of the model in the box, and a lean forward over its parameters for training on a CPU.

The forward computes what transformers' PaliGemma computes (``train.py --check`` compares their logits), but runs
the vision tower once for all questions about a picture, and the last block for the rows of text alone.

Letters: B pictures, Q questions, P patches, T positions of text, S = P + T, C width of the vision tower, D of the
decoder, N query heads, K key/value heads, G = N / K, H head size.
"""

import torch
import torch.nn.functional as F
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

P = 64
VOCABULARY = 1792
EMBEDDING = "model.language_model.embed_tokens.weight"
LOCATIONS = slice(639, 639 + 1024)
TEXT = {
    "model_type": "gemma2",
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "sliding_window": 64,
    "max_position_embeddings": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "image_size": 64,
    "patch_size": 8,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": False,
}


def make_model(seed):
    """A fresh PaliGemma 2 in small.

    Linear weights start at the scale of their inputs; the norms after each branch of the decoder at 0.3, so that a
    fresh block changes little.
    """
    torch.manual_seed(seed)
    config = PaliGemmaConfig(
        text_config=TEXT,
        vision_config=VISION,
        image_token_index=VOCABULARY - 1,
        vocab_size=VOCABULARY,
        projection_dim=TEXT["hidden_size"],
        hidden_size=TEXT["hidden_size"],
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = PaliGemmaForConditionalGeneration._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.normal_(0.0, weight.shape[1] ** -0.5 * (0.5 if "out_proj" in name or "fc2" in name else 1.0))
            if "patch_embedding.weight" in name:
                weight.normal_(0.0, weight[0].numel() ** -0.5)
            if "post_attention_layernorm" in name or "post_feedforward_layernorm" in name:
                weight.fill_(-0.7)
    return model


def linear(x, weight, bias=None):
    """Multiply in the type of ``x``; parameters stay in float32."""
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def below(w, stem):
    """The parameters under a stem, by the rest of their names."""
    return {name.removeprefix(stem): weight for name, weight in w.items() if name.startswith(stem)}


def see(w, pixels, dtype, block):
    """Vision tower: ``pixels (B, 64, 64, 3)`` bytes to ``(B, P, C)``, before the connector.

    ``block`` is :func:`vision_block`, or the same compiled.
    """
    B, side, C = pixels.shape[0], VISION["patch_size"], VISION["hidden_size"]
    stem = "model.vision_tower."
    scaled = ((pixels.float() * (1 / 255) - 0.5) / 0.5).to(dtype)
    cells = scaled.view(B, 8, side, 8, side, 3).permute(0, 1, 3, 5, 2, 4).reshape(B, P, 3 * side * side)
    kernel = w[stem + "embeddings.patch_embedding.weight"].view(C, -1)
    x = linear(cells, kernel, w[stem + "embeddings.patch_embedding.bias"]).float()
    x = x + w[stem + "embeddings.position_embedding.weight"]
    for layer in range(VISION["num_hidden_layers"]):
        x = block(x, below(w, f"{stem}encoder.layers.{layer}."), dtype)
    return F.layer_norm(x, (C,), w[stem + "post_layernorm.weight"], w[stem + "post_layernorm.bias"], 1e-6)


def vision_block(x, w, dtype):
    """One block of SigLIP: ``x (B, P, C)``."""
    B, _, C = x.shape
    heads = VISION["num_attention_heads"]
    y = F.layer_norm(x, (C,), w["layer_norm1.weight"], w["layer_norm1.bias"], 1e-6).to(dtype)
    q, k, v = (
        linear(y, w[f"self_attn.{one}_proj.weight"], w[f"self_attn.{one}_proj.bias"])
        .view(B, P, heads, C // heads)
        .transpose(1, 2)
        for one in "qkv"
    )
    scores = (q @ k.transpose(-1, -2)).float() * (C // heads) ** -0.5
    y = (scores.softmax(-1).to(dtype) @ v).transpose(1, 2).reshape(B, P, C)
    x = x + linear(y, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])
    y = F.layer_norm(x, (C,), w["layer_norm2.weight"], w["layer_norm2.bias"], 1e-6).to(dtype)
    y = F.gelu(linear(y, w["mlp.fc1.weight"], w["mlp.fc1.bias"]), approximate="tanh")
    return x + linear(y, w["mlp.fc2.weight"], w["mlp.fc2.bias"])


def connect(w, patches, dtype):
    """``(B, P, C)`` to soft tokens ``(B, P, D)``."""
    at = "model.multi_modal_projector.linear."
    return linear(patches.to(dtype), w[at + "weight"], w[at + "bias"]).float()


def rms_norm(x, weight):
    """Gemma's: scale to unit root-mean-square, then by ``1 + weight``."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1.0 + weight)


def angles(length):
    """Cosine and sine ``(length, H)`` for positions from 1."""
    inverse = 1.0 / (10000.0 ** (torch.arange(0, TEXT["head_dim"], 2, dtype=torch.float) / TEXT["head_dim"]))
    turns = torch.arange(1, length + 1, dtype=torch.float)[:, None] * inverse
    turns = torch.cat([turns, turns], -1)
    return turns.cos(), turns.sin()


def rotate(x, cos, sin):
    """``x (Q, heads, S, H)`` turned by its positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def masks(prefix, T):
    """Full and sliding masks ``(Q, 1, 1, S, S)``; True = may look. Padding comes last, where nobody looks."""
    place = torch.arange(P + T)
    causal = place[None, :] <= place[:, None]
    near = place[None, :] > place[:, None] - TEXT["sliding_window"]
    inside = place[None, :] < (P + prefix)[:, None]
    both = inside[:, :, None] & inside[:, None, :]
    return ((causal | both)[:, None, None], ((causal & near) | both)[:, None, None])


def answer(w, embedding, soft, ids, prefix, dtype, block):
    """Logits ``(Q, T, V)`` at the rows of text.

    Parameters
    ----------
    embedding : (V, D)
    soft : (Q, P, D)
        Soft tokens of the picture of each question.
    ids : (Q, T)
    prefix : (Q,)
        Positions of text in the bidirectional prefix.
    block : callable
        :func:`decoder_block`, or the same compiled.
    """
    T, depth = ids.shape[1], TEXT["num_hidden_layers"]
    x = torch.cat([soft, F.embedding(ids, embedding) * TEXT["hidden_size"] ** 0.5], 1)
    cos, sin = angles(P + T)
    full, sliding = masks(prefix, T)
    for layer in range(depth):
        # Nobody reads the picture's rows of the last block.
        first = P if layer == depth - 1 else 0
        mask = full if layer % 2 else sliding
        x = block(x, below(w, f"model.language_model.layers.{layer}."), cos, sin, mask, first, dtype)
    x = rms_norm(x, w["model.language_model.norm.weight"]).to(dtype)
    logits = linear(x, embedding).float()
    return torch.tanh(logits / TEXT["final_logit_softcapping"]) * TEXT["final_logit_softcapping"]


def decoder_block(x, w, cos, sin, mask, first, dtype):
    """One block of Gemma 2: ``x (Q, S, D)``; the result has the rows from ``first`` on."""
    N, K, H = TEXT["num_attention_heads"], TEXT["num_key_value_heads"], TEXT["head_dim"]
    Q, S = x.shape[:2]
    R = S - first
    y = rms_norm(x, w["input_layernorm.weight"]).to(dtype)
    q = linear(y[:, first:], w["self_attn.q_proj.weight"]).view(Q, R, N, H).transpose(1, 2)
    k = linear(y, w["self_attn.k_proj.weight"]).view(Q, S, K, H).transpose(1, 2)
    v = linear(y, w["self_attn.v_proj.weight"]).view(Q, S, K, H).transpose(1, 2)
    q_rot = rotate(q, cos[first:], sin[first:]).to(dtype).reshape(Q, K, N // K * R, H)
    k_rot = rotate(k, cos, sin).to(dtype)
    scores = (q_rot @ k_rot.transpose(-1, -2)).float().view(Q, K, N // K, R, S) * TEXT["query_pre_attn_scalar"] ** -0.5
    capped = torch.tanh(scores / TEXT["attn_logit_softcapping"]) * TEXT["attn_logit_softcapping"]
    probs = capped.masked_fill(~mask[..., first:, :], -1e9).softmax(-1).to(dtype)
    mixed = (probs.view(Q, K, N // K * R, S) @ v).view(Q, N, R, H).transpose(1, 2).reshape(Q, R, N * H)
    out = linear(mixed, w["self_attn.o_proj.weight"]).float()
    middle = x[:, first:] + rms_norm(out, w["post_attention_layernorm.weight"])
    y = rms_norm(middle, w["pre_feedforward_layernorm.weight"]).to(dtype)
    hidden = F.gelu(linear(y, w["mlp.gate_proj.weight"]), approximate="tanh") * linear(y, w["mlp.up_proj.weight"])
    out = linear(hidden, w["mlp.down_proj.weight"]).float()
    return middle + rms_norm(out, w["post_feedforward_layernorm.weight"])
