"""Faults of attention: scores and their scale, caps, heads, softmax."""

import numpy as np

from npgemma import ops
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import rounded

SCORES, PROBS, MIXED = (f"text.blocks.{{n}}.attn.{name}" for name in ("scores", "probs", "mixed"))
V_SCORES, V_PROBS, V_MIXED = (f"vision.blocks.{{n}}.attn.{name}" for name in ("scores", "probs", "mixed"))
CAPS = "text.blocks.{n}.attn.capped text.logits"
QK, V_QK = "group_heads(q_rot, K) @ group_heads(earlier(k_rot), K).mT", "group_heads(q, N) @ group_heads(k, N).mT"
CAPPED = "(capped if attn_softcap else scores)"
MASK = "(mask.sliding if window else mask.full)"


def groups_first(x, num_kv_heads):
    """Heads split as (G, K) instead of (K, G)."""
    B, T, N, H = x.shape
    return x.reshape(B, T, N // num_kv_heads, num_kv_heads, H).transpose(0, 3, 2, 1, 4)


def heads_last(gathered):
    """Heads interleaved with their channels: (B, K, G, T, H) -> (B, T, H*K*G)."""
    B, _, _, T, _ = gathered.shape
    return gathered.transpose(0, 3, 4, 1, 2).reshape(B, T, -1)


def not_transposed(gathered):
    """Heads before positions in memory, read as if it were the other way round: (B, N*T*H) -> (B, T, N*H)."""
    B, K, G, T, H = gathered.shape
    return gathered.reshape(B, T, K * G * H)


def softmax_in_bf16(x):
    """Softmax with its exponentials, their sum and their quotient rounded to bfloat16."""
    unnormalised = rounded(np.exp(rounded(x - np.max(x, axis=-1, keepdims=True))))
    return rounded(unnormalised / rounded(np.sum(unnormalised, axis=-1, keepdims=True)))


def softmax_with_bf16_exp(x):
    """Softmax whose exponentials alone are rounded to bfloat16."""
    unnormalised = rounded(np.exp(x - np.max(x, axis=-1, keepdims=True)))
    return unnormalised / np.sum(unnormalised, axis=-1, keepdims=True)


def softmax_plus_one(x):
    """Softmax with a one in its sum."""
    unnormalised = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return unnormalised / (np.sum(unnormalised, axis=-1, keepdims=True) + 1.0)


SCALES = [
    with_expressions(
        "scores-unscaled", "scores are not scaled", {SCORES: f"inner({QK}) * 1.0", V_SCORES: f"inner({V_QK}) * 1.0"}
    ),
    with_expressions(
        "scale-of-the-head-size",
        "scores are scaled by head_dim^-0.5; query_pre_attn_scalar^-0.5 is wanted",
        {SCORES: f"inner({QK}) * root(H)"},
        root=lambda size: size**-0.5,
    ),
    with_expressions(
        "scale-of-width-over-heads",
        "scores are scaled by (width / heads)^-0.5",
        {SCORES: f"inner({QK}) * root(D, N)"},
        root=lambda size, heads: (size / heads) ** -0.5,
    ),
    with_expressions(
        "scale-224",
        "scores are scaled by 224^-0.5: an early configuration of Gemma 2 9B, corrected to 256",
        {SCORES: f"inner({QK}) * root(224)"},
        root=lambda size: size**-0.5,
    ),
    with_expressions(
        "scale-twice",
        "scores are scaled twice",
        {SCORES: f"inner({QK}) * query_scale * query_scale", V_SCORES: f"inner({V_QK}) * query_scale * query_scale"},
    ),
    with_expressions(
        "scale-inverted",
        "scores are multiplied by the root; they are to be divided by it",
        {SCORES: f"inner({QK}) * (1.0 / query_scale)", V_SCORES: f"inner({V_QK}) * (1.0 / query_scale)"},
    ),
    with_expressions(
        "scale-before-the-product",
        "queries are scaled and rounded before the product; transformers scales the scores",
        {
            SCORES: "group_heads(bf16(q_rot * query_scale), K) @ group_heads(earlier(k_rot), K).mT",
            V_SCORES: "group_heads(bf16(q * query_scale), N) @ group_heads(k, N).mT",
        },
        bf16=rounded,
    ),
    with_expressions(
        "scores-rounded-before-the-scale",
        "scores are rounded to bfloat16 before they are scaled; this recipe rounds once",
        {SCORES: f"bf16({QK}) * query_scale", V_SCORES: f"bf16({V_QK}) * query_scale"},
        bf16=rounded,
    ),
    with_expressions(
        "scores-rounded-once",
        "scores are scaled in float32 and rounded once; this recipe rounds before too",
        {SCORES: f"({QK}) * query_scale", V_SCORES: f"({V_QK}) * query_scale"},
    ),
    with_expressions(
        "soft-cap-left-out", "the soft-cap of the scores is left out", {"text.blocks.{n}.attn.capped": "scores * 1.0"}
    ),
    with_expressions(
        "soft-cap-of-the-logits",
        "scores are bounded by the cap of the logits",
        {"text.blocks.{n}.attn.capped": "soft_cap(scores, final_softcap, inner)"},
    ),
    with_expressions(
        "soft-cap-50",
        "scores are bounded by 50, whatever the configuration says",
        {"text.blocks.{n}.attn.capped": "soft_cap(scores, 50.0, inner)"},
    ),
    with_equations(
        "soft-cap-rounded-inside",
        "each step of the soft-cap is rounded to bfloat16; this recipe rounds once",
        CAPS,
        soft_cap=lambda x, cap, inner: ops.soft_cap(x, cap, rounded),
    ),
    with_equations(
        "soft-cap-rounded-once",
        "the soft-cap is computed in float32 and rounded once; this recipe rounds each step",
        CAPS,
        soft_cap=lambda x, cap, inner: ops.soft_cap(x, cap, lambda y: y),
    ),
    with_expressions(
        "tanh-without-the-cap",
        "the soft-cap forgets to multiply by the cap again",
        {"text.blocks.{n}.attn.capped": "soft_cap(scores, attn_softcap, inner) * (1.0 / attn_softcap)"},
    ),
]

HEADS = [
    with_equations(
        "k-and-g-swapped",
        "query head n reads key head n % K; it is to read n // G: K comes before G when heads are split",
        SCORES,
        group_heads=groups_first,
    ),
    with_expressions(
        "queries-and-keys-swapped",
        "queries and keys stand in each other's place: scores are transposed",
        {V_SCORES: "inner(group_heads(k, N) @ group_heads(q, N).mT) * query_scale"},
    ),
    with_expressions(
        "queries-not-rotated-in-scores",
        "scores are made of queries before their rotation",
        {SCORES: "inner(group_heads(q, K) @ group_heads(earlier(k_rot), K).mT) * query_scale"},
    ),
    with_expressions(
        "keys-not-rotated-in-scores",
        "scores are made of keys before their rotation",
        {SCORES: "inner(group_heads(q_rot, K) @ group_heads(earlier(k), K).mT) * query_scale"},
    ),
    with_expressions(
        "keys-and-values-swapped",
        "k_proj and v_proj have each other's weights",
        {
            "text.blocks.{n}.attn.k": "split_heads(linear(attn_norm, v.weight), K)",
            "text.blocks.{n}.attn.v": "split_heads(linear(attn_norm, k.weight), K)",
            "vision.blocks.{n}.attn.k": "split_heads(linear(attn_norm, v.weight, v.bias), N)",
            "vision.blocks.{n}.attn.v": "split_heads(linear(attn_norm, k.weight, k.bias), N)",
        },
    ),
    with_expressions(
        "queries-and-keys-weights-swapped",
        "q_proj and k_proj have each other's weights",
        {
            "vision.blocks.{n}.attn.q": "split_heads(linear(attn_norm, k.weight, k.bias), N)",
            "vision.blocks.{n}.attn.k": "split_heads(linear(attn_norm, q.weight, q.bias), N)",
        },
    ),
    with_expressions(
        "keys-gathered",
        "keys are gathered where values belong",
        {MIXED: "merge_heads(probs @ group_heads(earlier(k), K))", V_MIXED: "merge_heads(probs @ group_heads(k, N))"},
    ),
    with_expressions(
        "rotated-values",
        "values are rotated as keys are; they are not to be",
        {MIXED: "merge_heads(probs @ group_heads(rotate(v, cos, sin, inner), K))"},
    ),
    with_equations(
        "heads-interleaved",
        "heads are laid side by side channel by channel; each head's channels stay together",
        f"{MIXED} {V_MIXED}",
        merge_heads=heads_last,
    ),
    with_equations(
        "heads-not-transposed",
        "heads and positions are not exchanged before heads are laid side by side",
        f"{MIXED} {V_MIXED}",
        merge_heads=not_transposed,
    ),
    with_expressions(
        "heads-split-interleaved",
        "channels are dealt out to heads one by one; each head has H in a row",
        {
            f"{tower}.blocks.{{n}}.attn.{name}": f"dealt(linear(attn_norm, {name}.weight{bias}), {letter})"
            for tower, letters, bias in (("text", "NKK", ""), ("vision", "NNN", ", {}.bias"))
            for name, letter in zip("qkv", letters, strict=True)
            for bias in [bias.format(name)]
        },
        dealt=lambda x, count: np.swapaxes(x.reshape(*x.shape[:2], -1, count), 2, 3),
    ),
    with_expressions(
        "softmax-over-queries",
        "softmax runs over queries; each query's row is to sum to one",
        {PROBS: f"softmax(hide({CAPPED}, {MASK}).mT).mT", V_PROBS: "softmax(scores.mT).mT"},
    ),
    with_equations(
        "softmax-in-bf16",
        "softmax is computed in bfloat16; compute it in float32",
        f"{PROBS} {V_PROBS}",
        softmax=softmax_in_bf16,
    ),
    with_equations(
        "softmax-with-bf16-exp",
        "softmax's exponentials are rounded to bfloat16 before they are summed",
        f"{PROBS} {V_PROBS}",
        softmax=softmax_with_bf16_exp,
    ),
    with_equations(
        "softmax-plus-one",
        "softmax has a one in its sum (an attention sink)",
        f"{PROBS} {V_PROBS}",
        softmax=softmax_plus_one,
    ),
    with_equations(
        "softmax-base-2",
        "softmax takes powers of 2 instead of e",
        f"{PROBS} {V_PROBS}",
        softmax=lambda x: ops.softmax(x * 0.6931471805599453),
    ),
    with_expressions(
        "soft-cap-left-out-of-probs",
        "probabilities are made of scores before their soft-cap",
        {PROBS: f"softmax(hide(scores, {MASK}))"},
    ),
]


FAULTS = [*SCALES, *HEADS]
