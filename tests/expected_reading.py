"""For each number that the panels of the decoder say, what it must be by a whole trace."""

import math

import numpy as np
from expected import MIDDLE, listed, rms, spread, t, words


def entering(f):
    n = MIDDLE[f.case][1]
    return f.whole[f"text.blocks.{n - 1}.out"][0]


def gain(f):
    return np.asarray(f.model.weights[f"text.blocks.{MIDDLE[f.case][1]}.attn_norm.weight"])


def allowed(f, padding=0, causal=False, window=None):
    """The share of allowed pairs, counted one by one."""
    prompt, length = len(f.ids), len(f.ids) + len(f.answer.ids) - 1
    return [[key <= query and not (window and query >= prompt and query - key >= window)
             or (key < prompt and query < prompt and not causal) for key in range(length)] for query in range(length)]


def turned(f, late, early):
    """The first head's score of the last token on the one before it, by complex numbers."""
    H, theta = f.cfg.text.head_dim, f.cfg.text.rope_theta
    speeds = theta ** (-2.0 * np.arange(H // 2) / H)
    q, k = ((x[: H // 2] + 1j * x[H // 2 :]) * np.exp(1j * position * speeds) for x, position in (
        (t(f, "attn.q")[0, -1, 0].astype(np.float64), late), (t(f, "attn.k")[0, -2, 0].astype(np.float64), early)))
    return float(np.real(q @ np.conj(k))) * f.cfg.text.query_scale


def final(f):
    return f.whole[f"text.blocks.{f.cfg.text.depth - 1}.out"][0]


def loud(f):
    """The products of the last token by size, and how many are a hundredth of them."""
    sizes = sorted(np.abs(t(f, "mlp.hidden")[0, -1].astype(np.float64)), reverse=True)
    return sizes, max(1, len(sizes) // 100)


EXPECTED = {
    "tokens": {
        "vocabulary": lambda f: f.whole["text.logits"].shape[-1],
        "words": lambda f: int(np.sum(~f.image)),
        "image": lambda f: int(np.sum(f.image)),
        "id": lambda f: f.cfg.image_token_id,
        "length": lambda f: f.whole["ids"].size,
    },
    "splice": {
        "vocabulary": lambda f: f.whole["text.logits"].shape[-1],
        "scale": lambda f: math.sqrt(f.whole["text.embedded"].shape[-1]),
        "width": lambda f: f.whole["text.embedded"].shape[-1],
        "image": lambda f: int(np.sum(f.image)),
        "words": lambda f: int(np.sum(~f.image)),
        "low": lambda f: min(rms(row) for row in f.whole["text.spliced"][0]),
        "high": lambda f: max(rms(row) for row in f.whole["text.spliced"][0]),
    },
    "decoder-block": {
        "depth": lambda f: sum(name.endswith(".mlp_norm") and name.startswith("text") for name in f.whole),
    },
    "rotary": {
        "block": lambda f: MIDDLE[f.case][1],
        "pairs": lambda f: f.whole["text.cos"].shape[-1],
        "fast": lambda f: 1.0,
        "slow": lambda f: f.cfg.text.rope_theta ** (2 / f.cfg.text.head_dim - 1),
        "late": lambda f: f.whole["positions"][0, -1],
        "early": lambda f: f.whole["positions"][0, -2],
        "here": lambda f: t(f, "attn.scores").reshape(f.cfg.text.num_heads, len(f.ids), -1)[0, -1, -2],
        "there": lambda f: turned(f, 100 + f.whole["positions"][0, -1], 100 + f.whole["positions"][0, -2]),
        "moved": lambda f: 100,
        "count": lambda f: min(4, f.whole["text.cos"].shape[-1]),
        "hands": lambda f: 5,
    },
    "masks": {
        "prompt": lambda f: f.whole["ids"].size,
        "answer": lambda f: sum(name.endswith(".text.embedded") for name in f.whole),
        "full": lambda f: np.mean(allowed(f)),
        "causal": lambda f: np.mean(allowed(f, causal=True)),
        "pads": lambda f: 8,
        "blocks": lambda f: sum(window is not None for window in f.cfg.text.layer_windows),
        "depth": lambda f: f.cfg.text.depth,
        "window": lambda f: f.cfg.text.layer_windows[0],
        "lost": lambda f: sum(allowed(f)[-1]) - sum(allowed(f, window=f.cfg.text.layer_windows[0])[-1]),
    },
    "grouped-heads": {
        "heads": lambda f: t(f, "attn.q").shape[2],
        "kv": lambda f: t(f, "attn.k").shape[2],
        "share": lambda f: t(f, "attn.probs").shape[2],
        "block": lambda f: MIDDLE[f.case][1],
        "spreads": lambda f: listed(f"{spread(head):.0f}" for group in t(f, "attn.probs")[0] for head in group),
        "released": lambda f: "8 heads on 1 (paligemma-3b), 8 heads on 4 (paligemma2-3b), 16 heads on 8 "
                              "(paligemma2-10b) and 32 heads on 16 (paligemma2-28b)",
        "size": lambda f: t(f, "attn.q").shape[3],
    },
    "decoder-looks": {
        "heads": lambda f: t(f, "attn.q").shape[2],
        "blocks": lambda f: listed(range(f.cfg.text.depth)),
        "depth": lambda f: f.cfg.text.depth,
        "block": lambda f: f.cfg.text.depth - 1,
        "share": lambda f: np.mean(
            f.whole[f"text.blocks.{f.cfg.text.depth - 1}.attn.probs"][0, ..., -1, :][..., f.image].sum(axis=-1)),
        "even": lambda f: sum(f.image) / len(f.ids),
    },
    "norms": {
        "before": lambda f: rms(entering(f)[-1]),
        "block": lambda f: MIDDLE[f.case][1],
        "after": lambda f: rms(entering(f)[-1]) / math.sqrt(rms(entering(f)[-1]) ** 2 + f.cfg.text.norm_eps),
        "least": lambda f: 1 + min(gain(f)),
        "most": lambda f: 1 + max(gain(f)),
        "forgotten": lambda f: rms(gain(f)),
        "mean": lambda f: np.mean(entering(f)[-1].astype(np.float64)),
        "tokens": lambda f: len(f.ids),
    },
    "soft-cap": {
        "cap": lambda f: f.cfg.text.attn_softcap,
        "block": lambda f: MIDDLE[f.case][1],
        "largest": lambda f: np.max(t(f, "attn.scores")),
        "capped": lambda f: np.max(t(f, "attn.capped")),
        "final_cap": lambda f: f.cfg.text.final_softcap,
        "top": lambda f: np.max(f.whole["text.logits"][0, -1]),
        "low": lambda f: np.min(t(f, "attn.scores")),
        "high": lambda f: np.max(t(f, "attn.scores")),
    },
    "mlp": {
        "wide": lambda f: t(f, "mlp.gate").shape[-1],
        "closed": lambda f: np.count_nonzero(t(f, "mlp.gate") <= 0) / t(f, "mlp.gate").size,
        "few": lambda f: loud(f)[1],
        "share": lambda f: sum(loud(f)[0][: loud(f)[1]]) / sum(loud(f)[0]),
    },
    "residual": {
        "first": lambda f: rms(words(f)),
        "last": lambda f: rms(final(f)[~f.image]),
        "times": lambda f: rms(final(f)[~f.image]) / rms(words(f)),
        "cosine": lambda f: np.sum(final(f)[-1].astype(float) * words(f)[-1])
        / (np.linalg.norm(final(f)[-1].astype(float)) * np.linalg.norm(words(f)[-1].astype(float))),
    },
}
