"""Every sentence with a number, against a whole trace of the same question."""

import functools
import math
import re
import struct

import numpy as np
import pytest
from explained import CASES, facts, the_box

import npgemma
from npgemma.base.describe import describe, size_of

MIDDLE = {"caption": (2, 2), "boxes": (2, 2), "compared": (2, 2), "same": (2, 2), "gemma 1": (1, 1), "words": (None, 2)}


def rms(x):
    return math.sqrt(np.mean(np.asarray(x, np.float64) ** 2))


def spread(probs):
    """Two to the power of the mean entropy of the rows."""
    rows = np.asarray(probs, np.float64).reshape(-1, probs.shape[-1])
    logs = np.log2(rows, out=np.zeros_like(rows), where=rows > 0)
    return 2.0 ** float(np.mean(-np.sum(rows * logs, axis=-1)))


def softmax(row):
    powers = np.exp(np.asarray(row, np.float64) - np.max(row))
    return powers / powers.sum()


def chosen(f):
    """The probability of each token of the answer."""
    return [softmax(row)[id] for row, id in zip(f.steps("text.logits"), f.answer.ids, strict=True)]


def listed(items):
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def pieces(f):
    """The tokens of the answer, words in quotes."""
    if f.model.tokenizer is None:
        return [f"#{id}" for id in f.answer.ids]
    found = [f.model.tokenizer.piece(id).replace("▁", " ") for id in f.answer.ids]
    return [piece if piece[0] == "<" else repr(piece) for piece in found]


def cosines(f):
    """Of the vector of the place in the middle with each place's, and that place."""
    table = f.model.weights["vision.positions.weight"]
    side = math.isqrt(len(table))
    here = (side // 2) * side + side // 2
    sizes = np.sqrt(np.sum(table**2, axis=-1))
    return [float(row @ table[here] / size / sizes[here]) for row, size in zip(table, sizes, strict=True)], here, side


def nearest(f, sign):
    values, here, side = cosines(f)
    place = min((number for number in range(len(values)) if number != here), key=lambda number: sign * values[number])
    return place // side, place % side, values[place]


def v(f, short):
    return f.whole[f"vision.blocks.{MIDDLE[f.case][0]}.{short}"]


def t(f, short):
    return f.whole[f"text.blocks.{MIDDLE[f.case][1]}.{short}"]


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


def guesses(f):
    """For each token of the answer, the likeliest one after each block."""
    weight = np.asarray(f.model.weights["text.norm.weight"], np.float64)
    table = np.asarray(f.model.weights["text.embedded.weight"], np.float64)
    return [[int(np.argmax(table @ (row / rms(row) * (1 + weight)))) for row in rows]
            for rows in zip(*(f.steps(f"text.blocks.{n}.out") for n in range(f.cfg.text.depth)), strict=True)]


def cache_bytes(f):
    cfg = f.cfg.text
    return 2 * cfg.num_kv_heads * cfg.head_dim * 4 * cfg.depth


def words(f):
    return f.whole["text.spliced"][0][~f.image]


def final(f):
    return f.whole[f"text.blocks.{f.cfg.text.depth - 1}.out"][0]


def loud(f):
    """The products of the last token by size, and how many are a hundredth of them."""
    sizes = sorted(np.abs(t(f, "mlp.hidden")[0, -1].astype(np.float64)), reverse=True)
    return sizes, max(1, len(sizes) // 100)


def kept_of_prompt(f):
    return [name for name in f.run.arrays if not name.startswith("step.")]


def second(f):
    """The second run's prompt, and a whole trace of it."""
    prompt = {"compared": "ocr"}.get(f.case, "caption en")
    return prompt, traced(str(f.picture), prompt)


@functools.cache
def traced(picture, prompt):
    """A whole trace of a prompt, made once."""
    return npgemma.trace(the_box(), picture, prompt, max_new_tokens=1)


def size_in_file(f):
    """Width and height from the head of a PNG."""
    return struct.unpack(">II", f.picture.read_bytes()[16:24])


def box(f):
    return npgemma.locate(f.model, f.answer, str(f.picture))[0][0].box


# For each panel, what each of its numbers must be.
EXPECTED = {
    "patches": {
        "wide": lambda f: size_in_file(f)[0],
        "tall": lambda f: size_in_file(f)[1],
        "square": lambda f: f.whole["pixels"].shape[1],
        "low": lambda f: np.min(f.whole["pixels"]),
        "high": lambda f: np.max(f.whole["pixels"]),
        "side": lambda f: math.isqrt(f.whole["vision.patches"].shape[1]),
        "numbers": lambda f: f.model.weights.arrays["vision.patches.weight"].shape[1],
        "width": lambda f: f.whole["vision.patches"].shape[2],
        "count": lambda f: f.whole["vision.patches"].shape[1],
    },
    "positions": {
        "count": lambda f: f.whole["vision.embedded"].shape[1],
        "row": lambda f: math.isqrt(f.whole["vision.embedded"].shape[1]) // 2,
        "column": lambda f: math.isqrt(f.whole["vision.embedded"].shape[1]) // 2,
        "near_row": lambda f: nearest(f, -1)[0],
        "near_column": lambda f: nearest(f, -1)[1],
        "near": lambda f: nearest(f, -1)[2],
        "far_row": lambda f: nearest(f, 1)[0],
        "far_column": lambda f: nearest(f, 1)[1],
        "far": lambda f: nearest(f, 1)[2],
    },
    "vision-block": {
        "depth": lambda f: sum(name.endswith(".middle") and name.startswith("vision") for name in f.whole),
        "number": lambda f: MIDDLE[f.case][0],
        "normed": lambda f: rms(v(f, "attn_norm")),
        "heads": lambda f: v(f, "attn.q").shape[2],
        "size": lambda f: v(f, "attn.q").shape[3],
        "strongest": lambda f: np.max(v(f, "attn.probs")),
        "wide": lambda f: v(f, "mlp.up").shape[2],
        "negative": lambda f: np.count_nonzero(v(f, "mlp.up") < 0) / v(f, "mlp.up").size,
        "low": lambda f: np.min(v(f, "mlp.up")),
        "high": lambda f: np.max(v(f, "mlp.up")),
    },
    "tower-looks": {
        "heads": lambda f: v(f, "attn.probs").shape[1],
        "blocks": lambda f: listed(range(f.cfg.vision.depth)),
        "depth": lambda f: f.cfg.vision.depth,
        "first": lambda f: 0,
        "last": lambda f: f.cfg.vision.depth - 1,
        "first_spread": lambda f: spread(f.whole["vision.blocks.0.attn.probs"]),
        "last_spread": lambda f: spread(f.whole[f"vision.blocks.{f.cfg.vision.depth - 1}.attn.probs"]),
        "count": lambda f: v(f, "attn.probs").shape[-1],
    },
    "connector": {
        "text": lambda f: f.whole["connector.out"].shape[2],
        "vision": lambda f: f.whole["vision.norm"].shape[2],
        "count": lambda f: f.whole["connector.out"].shape[1],
        "soft": lambda f: rms(f.whole["connector.out"]),
        "word": lambda f: rms(words(f)),
    },
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
    "lens": {
        "count": lambda f: len(f.answer.ids),
        "settled": lambda f: np.mean(
            [next(n for n in range(len(best)) if len(set(best[n:])) == 1) for best in guesses(f)]),
        "repeated": lambda f: sum(
            best[0] == read for best, read in zip(guesses(f), [f.ids[-1], *f.answer.ids], strict=False)),
        "last": lambda f: f.cfg.text.depth - 1,
    },
    "choice": {
        "vocabulary": lambda f: f.whole["text.logits"].shape[-1],
        "first": lambda f: pieces(f)[0],
        "sure": lambda f: math.exp(f.answer.logprobs[0]),
        "least": lambda f: int(np.argmin(f.answer.logprobs)),
        "unsure": lambda f: pieces(f)[int(np.argmin(f.answer.logprobs))],
        "unsure_prob": lambda f: math.exp(min(f.answer.logprobs)),
        "product": lambda f: math.exp(sum(f.answer.logprobs)),
    },
    "cache": {
        "row": lambda f: size_of(cache_bytes(f)),
        "start": lambda f: size_of(cache_bytes(f) * len(f.ids)),
        "prompt": lambda f: len(f.ids),
        "end": lambda f: size_of(cache_bytes(f) * (len(f.ids) + len(f.answer.ids) - 1)),
        "once": lambda f: len(f.ids) + len(f.answer.ids) - 1,
        "again": lambda f: sum(range(len(f.ids), len(f.ids) + len(f.answer.ids))),
        "low": lambda f: len(f.ids),
        "high": lambda f: len(f.ids) + len(f.answer.ids) - 1,
    },
    "compare-answers": {
        "prompt": lambda f: "caption en",
        "answer": lambda f: f.answer.text,
        "other_prompt": lambda f: second(f)[0],
        "other_answer": lambda f: npgemma.generate(f.model, str(f.picture), second(f)[0]).text,
    },
    "compare-tensors": {
        "count": lambda f: len(kept_of_prompt(f)),
        "same": lambda f: sum(np.array_equal(f.whole[name], second(f)[1][name]) for name in kept_of_prompt(f)),
        "reshaped": lambda f: sum(f.whole[name].shape != second(f)[1][name].shape for name in kept_of_prompt(f)),
        "first": lambda f: next(
            name for name in kept_of_prompt(f) if not np.array_equal(f.whole[name], second(f)[1][name])),
    },
    "places": {
        "last": lambda f: 1023,
        "apart": lambda f: 1024 // 8,
        "count": lambda f: f.answer.text.count("<loc") // 4,
        "label": lambda f: box(f).label,
        "left": lambda f: box(f).corners[0],
        "top": lambda f: box(f).corners[1],
        "right": lambda f: box(f).corners[2],
        "bottom": lambda f: box(f).corners[3],
    },
}


def close(came, wanted):
    """Equal, but for the roundings of sums that were added in another order."""
    if isinstance(wanted, str) or isinstance(came, str):
        return came == wanted
    return came == pytest.approx(wanted, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_number_in_a_sentence_is_the_trace_s(case):
    f = facts(case)
    for key, panel in f.panels.items():
        for sentence in panel.sentences():
            for name, came in sentence.numbers.items():
                wanted = EXPECTED[key][name](f)
                assert close(came, wanted), f"{key}: {name} is {came}, want {wanted}, in: {sentence}"


def test_every_expectation_is_used():
    said = {(key, name) for case in CASES for key, panel in facts(case).panels.items()
            for sentence in panel.sentences() for name in sentence.numbers}
    assert said == {(key, name) for key, names in EXPECTED.items() for name in names}


@pytest.mark.parametrize("case", CASES)
def test_no_number_is_typed(case):
    for panel in facts(case).panels.values():
        for sentence in panel.sentences():
            words = re.sub(r"\{[^}]*\}|`[^`]*`", "", sentence.template)
            assert not re.search(r"\d", words), sentence.template


@pytest.mark.parametrize("case", CASES)
def test_lines_under_drawings_are_of_the_whole_tensors(case):
    f = facts(case)
    axes = f.whole.manifest["axes"]
    lines = {describe(array, name, axes[name]) for name, array in f.whole.items() if not name.startswith("step.")}
    drawn = [figure.line for panel in f.panels.values() for figure in panel.figures if figure.line]
    assert len(drawn) > 5
    assert set(drawn) <= lines


@pytest.mark.parametrize("case", ["caption", "boxes"])
def test_tables_of_choices_hold_the_probabilities_of_the_logits(case):
    f = facts(case)
    for step, row in zip(f.panels["choice"].steps, f.steps("text.logits"), strict=True):
        probs, hot = softmax(row), softmax(np.asarray(row, float) / 2)
        best = sorted(range(len(row)), key=lambda id: (-row[id], id))[:8]
        assert [cells[2] for cells in step["rows"]] == [f"{probs[id]:.2%}" for id in best]
        assert [cells[4] for cells in step["rows"]] == [f"{hot[id]:.2%}" for id in best]
        assert [cells[5] == "out" for cells in step["rows"]] == [False] * 3 + [True] * 5
        kept = next(count for count in range(1, 9) if sum(sorted(probs)[-count:]) >= 0.9)
        assert [cells[6] == "out" for cells in step["rows"]] == [False] * kept + [True] * (8 - kept)


def test_the_lens_ends_with_what_the_model_said():
    f = facts("caption")
    for step, piece, prob in zip(f.panels["lens"].steps, pieces(f), chosen(f), strict=True):
        assert step["rows"][-1][1] == f"{piece}  {prob:.0%}"


def test_the_three_norms_stand_beside_each_other():
    f = facts("caption")
    x = entering(f).astype(np.float64)
    last, eps = x[-1], f.cfg.text.norm_eps
    for place, row in enumerate(f.panels["norms"].table["rows"]):
        plain = last[place] / math.sqrt(np.mean(last**2) + eps)
        layer = (last[place] - last.mean()) / math.sqrt(last.var() + eps)
        batch = (last[place] - x[:, place].mean()) / math.sqrt(x[:, place].var() + eps)
        wanted = [last[place], plain, plain * (1 + gain(f)[place]), layer, batch]
        assert row == [str(place), *(f"{number:.3f}" for number in wanted)]


@pytest.mark.parametrize("case", ["caption", "boxes", "words"])
def test_the_token_table_is_the_prompt(case):
    f = facts(case)
    rows = f.panels["tokens"].table["rows"]
    text = [int(row[2]) for row in rows if row[3] != "image"]
    assert text == [int(id) for id in f.ids if id != f.cfg.image_token_id]
    assert [row[4] for row in rows if row[3] == "image"] == (["1-64"] if f.picture else [])
