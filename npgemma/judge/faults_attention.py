"""Faults of attention: rotation, scores, masks, heads."""

import numpy as np

from npgemma import masks, ops, rotary
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import rounded

ROTATED = "text.blocks.{n}.attn.q_rot text.blocks.{n}.attn.k_rot"
TABLES = "text.cos text.sin"
SCORES, PROBS, MIXED = (f"text.blocks.{{n}}.attn.{name}" for name in ("scores", "probs", "mixed"))
V_SCORES, V_PROBS, V_MIXED = (f"vision.blocks.{{n}}.attn.{name}" for name in ("scores", "probs", "mixed"))
CAPS = "text.blocks.{n}.attn.capped text.logits"
QK, V_QK = "group_heads(q_rot, K) @ group_heads(earlier(k_rot), K).mT", "group_heads(q, N) @ group_heads(k, N).mT"
CAPPED = "(capped if attn_softcap else scores)"
MASK = "(mask.sliding if window else mask.full)"


def interleaved(x, cos, sin, inner):
    """Turns channels 2i and 2i + 1 together."""
    c, s = cos[:, :, None], sin[:, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.stack([inner(even * c) - inner(odd * s), inner(odd * c) + inner(even * s)], axis=-1)
    return turned.reshape(x.shape)


def sorted_pairs(x, cos, sin, inner):
    """Turns neighbours, then lays the first of all pairs before the second."""
    turned = interleaved(x, cos, sin, inner)
    return np.concatenate([turned[..., 0::2], turned[..., 1::2]], axis=-1)


def backwards(x, cos, sin, inner):
    """Turns the other way round."""
    return rotary.rotate(x, cos, -sin, inner)


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


ROTATION = [
    with_equations("rotation-interleaved", "channels 2i and 2i+1 turn together; PaliGemma pairs i with i + H/2", ROTATED,
                   rotate=interleaved),
    with_equations("rotation-sorted-pairs", "neighbours are paired and then sorted; PaliGemma pairs i with i + H/2", ROTATED,
                   rotate=sorted_pairs),
    with_equations("rotation-backwards", "the rotation turns the other way: the sign of the sine", ROTATED, rotate=backwards),
    with_expressions("rotation-left-out", "queries and keys are not rotated",
                     {"text.blocks.{n}.attn.q_rot": "q * 1.0", "text.blocks.{n}.attn.k_rot": "k * 1.0"}),
    with_expressions("keys-not-rotated", "keys are not rotated", {"text.blocks.{n}.attn.k_rot": "k * 1.0"}),
    with_equations("rotation-rounded-inside", "the products of the rotation are rounded to bfloat16 one by one; this recipe "
                   "rounds once", ROTATED,
                   rotate=lambda x, cos, sin, inner: rotary.rotate(x, cos, sin, rounded)),
    with_equations("rotation-rounded-once", "the rotation is computed in float32 and rounded once; this recipe rounds each "
                   "product", ROTATED, rotate=lambda x, cos, sin, inner: rotary.rotate(x, cos, sin, lambda y: y)),
    with_equations("rotation-by-bf16-tables", "cosine and sine are rounded to bfloat16; this recipe keeps them in float32",
                   f"{TABLES} {ROTATED}", cos=lambda x: rounded(np.cos(x)), sin=lambda x: rounded(np.sin(x)),
                   rotate=lambda x, cos, sin, inner: rotary.rotate(x, rounded(cos), rounded(sin), inner)),
    with_equations("positions-from-zero", "positions begin at 0; here they begin at 1", TABLES,
                   angles=lambda positions, *rest: rotary.angles(positions - 1, *rest)),
    with_equations("positions-one-late", "positions are one too large", TABLES,
                   angles=lambda positions, *rest: rotary.angles(positions + 1, *rest)),
    with_equations("positions-all-equal", "every position of a row has the first one's angle", TABLES,
                   angles=lambda positions, *rest: rotary.angles(positions * 0 + positions[:, :1], *rest)),
    *(
        with_equations(f"rope-theta-{theta:g}", f"the base of the frequencies is {theta:g}, whatever the configuration says",
                       TABLES, angles=lambda positions, head, _, dtype, theta=theta: (
                           rotary.angles(positions, head, theta, dtype)))
        for theta in (1e6, 5e5, 1e4, 1e3)
    ),
    with_equations("frequencies-of-half-a-head", "frequencies fall twice as fast: their exponent is 2i / (H/2), not 2i / H",
                   TABLES, angles=lambda positions, head, theta, dtype: rotary.angles(positions, head, theta**2, dtype)),
    with_equations("angles-in-bf16", "positions times frequencies are rounded to bfloat16 before cosine and sine", TABLES,
                   cos=lambda x: np.cos(rounded(x)), sin=lambda x: np.sin(rounded(x))),
    with_expressions("cos-and-sin-swapped", "cosine and sine stand in each other's place",
                     {"text.cos": "inner(sin(angles(positions, H, rope_theta, dtype)))",
                      "text.sin": "inner(cos(angles(positions, H, rope_theta, dtype)))"}),
]

SCALES = [
    with_expressions("scores-unscaled", "scores are not scaled",
                     {SCORES: f"inner({QK}) * 1.0", V_SCORES: f"inner({V_QK}) * 1.0"}),
    with_expressions("scale-of-the-head-size", "scores are scaled by head_dim^-0.5; query_pre_attn_scalar^-0.5 is wanted",
                     {SCORES: f"inner({QK}) * root(H)"}, root=lambda size: size**-0.5),
    with_expressions("scale-of-width-over-heads", "scores are scaled by (width / heads)^-0.5",
                     {SCORES: f"inner({QK}) * root(D, N)"}, root=lambda size, heads: (size / heads) ** -0.5),
    with_expressions("scale-224", "scores are scaled by 224^-0.5: an early configuration of Gemma 2 9B, corrected to 256",
                     {SCORES: f"inner({QK}) * root(224)"}, root=lambda size: size**-0.5),
    with_expressions("scale-twice", "scores are scaled twice",
                     {SCORES: f"inner({QK}) * query_scale * query_scale", V_SCORES: f"inner({V_QK}) * query_scale * query_scale"}),
    with_expressions("scale-inverted", "scores are multiplied by the root; they are to be divided by it",
                     {SCORES: f"inner({QK}) * (1.0 / query_scale)", V_SCORES: f"inner({V_QK}) * (1.0 / query_scale)"}),
    with_expressions(
        "scale-before-the-product", "queries are scaled and rounded before the product; transformers scales the scores",
        {SCORES: "group_heads(bf16(q_rot * query_scale), K) @ group_heads(earlier(k_rot), K).mT",
         V_SCORES: "group_heads(bf16(q * query_scale), N) @ group_heads(k, N).mT"}, bf16=rounded),
    with_expressions("scores-rounded-before-the-scale", "scores are rounded to bfloat16 before they are scaled; this recipe "
                     "rounds once", {SCORES: f"bf16({QK}) * query_scale", V_SCORES: f"bf16({V_QK}) * query_scale"},
                     bf16=rounded),
    with_expressions("scores-rounded-once", "scores are scaled in float32 and rounded once; this recipe rounds before too",
                     {SCORES: f"({QK}) * query_scale", V_SCORES: f"({V_QK}) * query_scale"}),
    with_expressions("soft-cap-left-out", "the soft-cap of the scores is left out",
                     {"text.blocks.{n}.attn.capped": "scores * 1.0"}),
    with_expressions("soft-cap-of-the-logits", "scores are bounded by the cap of the logits",
                     {"text.blocks.{n}.attn.capped": "soft_cap(scores, final_softcap, inner)"}),
    with_expressions("soft-cap-50", "scores are bounded by 50, whatever the configuration says",
                     {"text.blocks.{n}.attn.capped": "soft_cap(scores, 50.0, inner)"}),
    with_equations("soft-cap-rounded-inside", "each step of the soft-cap is rounded to bfloat16; this recipe rounds once",
                   CAPS, soft_cap=lambda x, cap, inner: ops.soft_cap(x, cap, rounded)),
    with_equations("soft-cap-rounded-once", "the soft-cap is computed in float32 and rounded once; this recipe rounds each "
                   "step", CAPS, soft_cap=lambda x, cap, inner: ops.soft_cap(x, cap, lambda y: y)),
    with_expressions("tanh-without-the-cap", "the soft-cap forgets to multiply by the cap again",
                     {"text.blocks.{n}.attn.capped": "soft_cap(scores, attn_softcap, inner) * (1.0 / attn_softcap)"}),
]

HEADS = [
    with_equations("k-and-g-swapped", "query head n reads key head n % K; it is to read n // G: K comes before G when heads are "
                   "split", SCORES, group_heads=groups_first),
    with_expressions("queries-and-keys-swapped", "queries and keys stand in each other's place: scores are transposed",
                     {V_SCORES: "inner(group_heads(k, N) @ group_heads(q, N).mT) * query_scale"}),
    with_expressions("queries-not-rotated-in-scores", "scores are made of queries before their rotation",
                     {SCORES: "inner(group_heads(q, K) @ group_heads(earlier(k_rot), K).mT) * query_scale"}),
    with_expressions("keys-not-rotated-in-scores", "scores are made of keys before their rotation",
                     {SCORES: "inner(group_heads(q_rot, K) @ group_heads(earlier(k), K).mT) * query_scale"}),
    with_expressions("keys-and-values-swapped", "k_proj and v_proj have each other's weights",
                     {"text.blocks.{n}.attn.k": "split_heads(linear(attn_norm, v.weight), K)",
                      "text.blocks.{n}.attn.v": "split_heads(linear(attn_norm, k.weight), K)",
                      "vision.blocks.{n}.attn.k": "split_heads(linear(attn_norm, v.weight, v.bias), N)",
                      "vision.blocks.{n}.attn.v": "split_heads(linear(attn_norm, k.weight, k.bias), N)"}),
    with_expressions("queries-and-keys-weights-swapped", "q_proj and k_proj have each other's weights",
                     {"vision.blocks.{n}.attn.q": "split_heads(linear(attn_norm, k.weight, k.bias), N)",
                      "vision.blocks.{n}.attn.k": "split_heads(linear(attn_norm, q.weight, q.bias), N)"}),
    with_expressions("keys-gathered", "keys are gathered where values belong",
                     {MIXED: "merge_heads(probs @ group_heads(earlier(k), K))", V_MIXED: "merge_heads(probs @ group_heads(k, N))"}),
    with_expressions("rotated-values", "values are rotated as keys are; they are not to be",
                     {MIXED: "merge_heads(probs @ group_heads(rotate(v, cos, sin, inner), K))"}),
    with_equations("heads-interleaved", "heads are laid side by side channel by channel; each head's channels stay together",
                   f"{MIXED} {V_MIXED}", merge_heads=heads_last),
    with_equations("heads-not-transposed", "heads and positions are not exchanged before heads are laid side by side",
                   f"{MIXED} {V_MIXED}", merge_heads=not_transposed),
    with_expressions("heads-split-interleaved", "channels are dealt out to heads one by one; each head has H in a row",
                     {f"{tower}.blocks.{{n}}.attn.{name}": f"dealt(linear(attn_norm, {name}.weight{bias}), {letter})"
                      for tower, letters, bias in (("text", "NKK", ""), ("vision", "NNN", ", {}.bias"))
                      for name, letter in zip("qkv", letters, strict=True)
                      for bias in [bias.format(name)]},
                     dealt=lambda x, count: np.swapaxes(x.reshape(*x.shape[:2], -1, count), 2, 3)),
    with_expressions("softmax-over-queries", "softmax runs over queries; each query's row is to sum to one",
                     {PROBS: f"softmax(hide({CAPPED}, {MASK}).mT).mT", V_PROBS: "softmax(scores.mT).mT"}),
    with_equations("softmax-in-bf16", "softmax is computed in bfloat16; compute it in float32", f"{PROBS} {V_PROBS}",
                   softmax=softmax_in_bf16),
    with_equations("softmax-with-bf16-exp", "softmax's exponentials are rounded to bfloat16 before they are summed",
                   f"{PROBS} {V_PROBS}", softmax=softmax_with_bf16_exp),
    with_equations("softmax-plus-one", "softmax has a one in its sum (an attention sink)", f"{PROBS} {V_PROBS}",
                   softmax=softmax_plus_one),
    with_equations("softmax-base-2", "softmax takes powers of 2 instead of e", f"{PROBS} {V_PROBS}",
                   softmax=lambda x: ops.softmax(x * 0.6931471805599453)),
    with_expressions("soft-cap-left-out-of-probs", "probabilities are made of scores before their soft-cap",
                     {PROBS: f"softmax(hide(scores, {MASK}))"}),
]


def causal(token_types, attention_mask, num_queries):
    """Each position sees back only."""
    return masks.prefix_lm(token_types * 0 + 1, attention_mask, num_queries)


def moved(token_types, by):
    """The token types with the suffix beginning so much later."""
    rolled = np.roll(token_types, by, axis=1)
    edge = slice(0, by) if by > 0 else slice(by, None)
    rolled[:, edge] = 0 if by > 0 else 1
    return rolled


def slots_in_window(token_types, attention_mask, num_queries, window, both=False):
    """A window over the prefix too: backwards, or on both sides."""
    slots = np.arange(token_types.shape[1])
    distance = slots[-num_queries:, None] - slots[None, :]
    near = np.abs(distance) < window if both else distance < window
    return masks.prefix_lm(token_types, attention_mask, num_queries) & near


FULL, SLIDING = "mask.full", "mask.sliding"
LEFT = [
    with_equations("mask-causal", "the prefix sees back only; pictures and prompt see all of themselves", f"{FULL} {SLIDING}",
                   prefix_lm=causal, sliding_prefix_lm=lambda types, real, num, window: (
                       masks.sliding_prefix_lm(types * 0 + 1, real, num, window))),
    with_equations("mask-all", "everybody sees everything, suffix and padding too", f"{FULL} {SLIDING}",
                   prefix_lm=lambda types, real, num: causal(types, real, num) | True,
                   sliding_prefix_lm=lambda types, real, num, window: causal(types, real, num) | True),
    with_equations("mask-suffix-seen", "the prefix sees the suffix: the answer leaks", f"{FULL} {SLIDING}",
                   prefix_lm=lambda types, real, num: masks.prefix_lm(types * 0, real, num),
                   sliding_prefix_lm=lambda types, real, num, window: masks.sliding_prefix_lm(types * 0, real, num, window)),
    with_equations("mask-padding-seen", "padding is looked at", f"{FULL} {SLIDING}",
                   prefix_lm=lambda types, real, num: masks.prefix_lm(types, real * 0 + 1, num),
                   sliding_prefix_lm=lambda types, real, num, window: (
                       masks.sliding_prefix_lm(types, real * 0 + 1, num, window))),
    *(
        with_equations(f"mask-suffix-one-{word}", f"the suffix begins one token too {word}", f"{FULL} {SLIDING}",
                       prefix_lm=lambda types, real, num, by=by: masks.prefix_lm(moved(types, by), real, num),
                       sliding_prefix_lm=lambda types, real, num, window, by=by: (
                           masks.sliding_prefix_lm(moved(types, by), real, num, window)))
        for word, by in (("late", 1), ("early", -1))
    ),
    with_equations("mask-inverted", "the mask is inverted: true where a query may not look", f"{FULL} {SLIDING}",
                   prefix_lm=lambda *given: ~masks.prefix_lm(*given),
                   sliding_prefix_lm=lambda *given: ~masks.sliding_prefix_lm(*given)),
    with_equations("mask-without-itself", "a suffix token does not see itself", f"{FULL} {SLIDING}",
                   prefix_lm=lambda types, real, num: masks.prefix_lm(types, real, num) & strictly_before(types, num),
                   sliding_prefix_lm=lambda types, real, num, window: (
                       masks.sliding_prefix_lm(types, real, num, window) & strictly_before(types, num))),
    *(
        with_equations(f"window-one-too-{word}", f"the sliding window is one token too {word}; it counts the token itself",
                       SLIDING, sliding_prefix_lm=lambda types, real, num, window, by=by: (
                           masks.sliding_prefix_lm(types, real, num, window + by)))
        for word, by in (("wide", 1), ("narrow", -1))
    ),
    with_equations("window-left-out", "blocks with a sliding window see everything", SLIDING,
                   sliding_prefix_lm=lambda types, real, num, window: masks.prefix_lm(types, real, num)),
    with_equations("window-over-the-prefix", "the sliding window bounds the prefix too", SLIDING,
                   sliding_prefix_lm=slots_in_window),
    with_equations("window-on-both-sides", "the sliding window bounds the prefix on both sides", SLIDING,
                   sliding_prefix_lm=lambda *given: slots_in_window(*given, both=True)),
    with_expressions("window-on-the-other-blocks", "the sliding window is on the odd blocks; it belongs on the even ones",
                     {PROBS: f"softmax(hide({CAPPED}, mask.full if window else mask.sliding))"}),
    with_expressions("window-left-out-of-probs", "blocks with a sliding window use the full mask",
                     {PROBS: f"softmax(hide({CAPPED}, mask.full))"}),
    with_expressions("mask-left-out", "scores are not masked", {PROBS: f"softmax({CAPPED} * 1.0)"}),
    with_expressions("soft-cap-after-the-mask", "scores are masked before their soft-cap, so that nothing is hidden",
                     {PROBS: f"softmax(soft_cap(hide(scores, {MASK}), attn_softcap, inner))"}),
    with_expressions("mask-of-zeros-and-ones", "the 0/1 mask is added to the scores, where 0 and minus infinity belong",
                     {PROBS: f"softmax({CAPPED} + ones({MASK}))"},
                     ones=lambda mask: mask[:, None, None].astype(np.float64)),
    with_expressions("mask-multiplied", "scores are multiplied by the mask; a score of 0 is not hidden",
                     {PROBS: f"softmax({CAPPED} * ones({MASK}))"},
                     ones=lambda mask: mask[:, None, None].astype(np.float64)),
    with_expressions("mask-transposed", "the mask is transposed: keys are asked what queries may see",
                     {PROBS: f"softmax(hide({CAPPED}, {MASK}.mT))"}),
]


def strictly_before(token_types, num_queries):
    """False where a suffix token meets itself."""
    S = token_types.shape[1]
    itself = np.eye(S, dtype=bool)[-num_queries:]
    return ~(itself & (token_types != 0)[:, -num_queries:, None])


FAULTS = [*ROTATION, *SCALES, *HEADS, *LEFT]
