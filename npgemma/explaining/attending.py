"""Who looks where: the panels that are pointed at, the masks, and the heads that share.

Letters: N query heads, K key/value heads, T and S positions, P patches.
"""

import base64
import math
from typing import Any

import numpy as np

from npgemma import masks, ops
from npgemma.base.describe import mean_entropy
from npgemma.config import DECODERS
from npgemma.explaining.code import body
from npgemma.explaining.curves import curves, groups
from npgemma.explaining.heat import data_uri, heat
from npgemma.explaining.panel import Figure, Panel, Sentence, code, formulas, say
from npgemma.explaining.run import Run
from npgemma.explaining.seeing import small, square
from npgemma.show.token_table import pieces_of

# So many padding tokens are put before the prompt to show what a mask does with them.
PADDING = 8


def tower_looks(run: Run) -> Panel:
    """Where the heads of the tower look."""
    seeing, cfg = run.kept.seeing, run.model.config.vision
    names = [f"vision.blocks.{n}.attn.probs" for n in seeing]
    spreads = [2.0 ** mean_entropy(run[name]) for name in names]
    matrix = {n: run[name][0, :, 0] for n, name in zip(seeing, names, strict=True)}
    return Panel(
        "tower-looks", "Where the tower looks",
        (
            say("Point at a patch of the picture: the brighter another one, the more of its content flows into yours. "
                "Every patch may look at every other one, in all directions. Choose a block and one of its {heads} "
                "heads; blocks {blocks} of {depth} are kept.",
                heads=cfg.num_heads, blocks=listed(seeing), depth=cfg.depth),
            say("In block {first} a look is spread over some {first_spread:.0f} patches, in block {last} over "
                "{last_spread:.0f}: over so many as would be looked at, if all of them got the same weight (two to the "
                "power of the entropy). An even look at all would be spread over {count}.",
                first=seeing[0], last=seeing[-1], first_spread=spreads[0], last_spread=spreads[-1],
                count=matrix[seeing[0]].shape[-1]),
        ),
        "Dosovitskiy et al. 2021, sec. 4.5",
        formulas(run, f"{run.opened}.attn.probs"),
        code(run, f"{run.opened}.attn.probs"),
        look=look(matrix, list(range(run.kept.thinning.squares**2)), []), picture=data_uri(small(square(run))),
    )


def decoder_looks(run: Run) -> Panel:
    """Where the heads of the decoder look, from each token of the prompt and of the answer."""
    reading, cfg = run.kept.reading, run.model.config.text
    matrix = {n: attention_matrix(run, n) for n in reading}
    tokens, thin = shown_tokens(run), run.kept.thinning
    places = np.searchsorted(thin.positions, thin.image[thin.patches]).tolist() if run.sees else []
    last = attention_matrix(run, reading[-1])[:, len(thin.positions) - 1]
    share = float(last[:, places].sum(axis=-1).mean()) if run.sees else 0.0
    even = float(np.mean(run.question.ids[0] == run.model.config.image_token_id))
    seen = ("When the model chose the first token of its answer, the heads of block {block} gave {share:.0%} of their "
            "attention to the picture; a look that is even over all tokens would give it {even:.0%}.")
    seen = seen if run.sees else "There is no picture here, so all looks go to words."
    return Panel(
        "decoder-looks", "Where the decoder looks",
        (
            say("Point at a token, or at a patch: you see where it looks, on the picture and among the tokens. The "
                "last token of the prompt chooses the first one of the answer, and every token of the answer chooses "
                "the next. Choose a block and one of {heads} heads; blocks {blocks} of {depth} are kept.",
                heads=cfg.num_heads, blocks=listed(reading), depth=cfg.depth),
            say(seen, **({"block": reading[-1], "share": share, "even": even} if run.sees else {})),
        ),
        "Vaswani et al. 2017, sec. 3.2",
        formulas(run, f"{run.block}.attn.scores", f"{run.block}.attn.probs", f"{run.block}.attn.mixed"),
        code(run, f"{run.block}.attn.scores", f"{run.block}.attn.probs", f"{run.block}.attn.mixed"),
        look=look(matrix, places, tokens), picture=data_uri(small(square(run))) if run.sees else "",
    )


def attention_matrix(run: Run, n: int) -> np.ndarray:
    """Weights of every position on every one, of all heads of a block: (N, S, S)."""
    name = f"text.blocks.{n}.attn.probs"
    first = run[name][0].reshape(-1, *run[name].shape[-2:])
    T, later = first.shape[1], len(run.answer.ids) - 1
    whole = np.zeros((len(first), T + later, T + later), np.float32)
    whole[:, :T, :T] = first
    for step in range(later):
        row = run[f"step.{step}.{name}"][0].reshape(len(first), -1)
        whole[:, T + step, : row.shape[-1]] = row
    return whole


def shown_tokens(run: Run) -> list[dict[str, Any]]:
    """The tokens that stand beside the picture: what each is called, its place in the matrix, and whose it is."""
    cfg, thin = run.model.config, run.kept.thinning
    ids = run.question.ids[0][thin.positions].tolist()
    count, answer = len(ids), list(run.answer.ids[:-1])
    pieces = pieces_of(cfg, run.model.tokenizer, [*ids, *answer])
    image = set(np.searchsorted(thin.positions, thin.image[thin.patches]).tolist()) if run.sees else set()
    return [
        {"text": piece, "place": place, "answer": place >= count}
        for place, piece in enumerate(pieces) if place not in image
    ]


def look(matrix: dict[int, np.ndarray], patches: list[int], tokens: list[dict[str, Any]]) -> dict[str, Any]:
    """What the script needs: weights as 16-bit numbers, a 65,535th each."""
    size = next(iter(matrix.values())).shape[-1]
    weights = {n: np.rint(x * 65535).astype("<u2").tobytes() for n, x in matrix.items()}
    return {
        "size": size,
        "heads": len(next(iter(matrix.values()))),
        "blocks": list(matrix),
        "side": math.isqrt(len(patches)),
        "patches": patches,
        "tokens": tokens,
        "weights": {str(n): base64.b64encode(data).decode("ascii") for n, data in weights.items()},
    }


def listed(numbers) -> str:
    """``0, 2 and 4``."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def who_may_look(run: Run) -> Panel:
    """Prefix-LM against a causal mask, padding and a window."""
    prompt, answer = run.question.ids.shape[1], len(run.answer.ids) - 1
    length, window = prompt + answer, run.model.config.text.sliding_window
    types = np.array([[0] * prompt + [1] * answer])
    real = np.ones_like(types)
    full, causal = (masks.prefix_lm(kind, real, length)[0] for kind in (types, np.ones_like(types)))
    before = np.zeros((1, PADDING), types.dtype)
    padded = masks.prefix_lm(np.concatenate([before, types], 1), np.concatenate([before, real], 1), length + PADDING)[0]
    figures = [
        Figure(heat(full, "prefix-LM",
                          0, 1), say("PaliGemma's own: dark where the row's token may look at the column's.")),
        Figure(heat(causal, "causal", 0, 1), say("Causal, as in most language models: back only.")),
        Figure(heat(padded, "padding", 0, 1), say("With {pads} padding tokens before the prompt: nobody looks at them.",
                                                  pads=PADDING)),
    ]
    sentences = who_sees_what(prompt, answer, full, causal)
    if window is not None:
        sliding = masks.sliding_prefix_lm(types, real, length, window)[0]
        blocks = sum(each is not None for each in run.model.config.text.layer_windows)
        sentences.append(
            say("In {blocks} of the {depth} blocks a token of the answer looks back over a window of {window:,} "
                "tokens only, itself among them; the last one here does not see {lost} of the first tokens then. The "
                "prompt sees itself whole all the same.", blocks=blocks, depth=run.model.config.text.depth,
                window=window, lost=int(full[-1].sum() - sliding[-1].sum())))
        figures.append(Figure(heat(sliding, "window",
                                            0, 1), say("With the window of {window:,} tokens.", window=window)))
    names = ["mask.full"] + ["mask.sliding"] * (window is not None)
    return Panel(
        "masks",
        "Who may look at whom", tuple(sentences),
        "Beyer et al. 2024, fig. 2 and sec. 5.2; Gemma Team 2024 (Gemma 2), sec. 2",
        formulas(run, *names), (*code(run, *names), body(masks.prefix_lm), body(masks.both_in_prefix)), tuple(figures),
    )


def who_sees_what(prompt: int, answer: int, full: np.ndarray, causal: np.ndarray) -> list[Sentence]:
    """Say why prompt and answer see what they see."""
    return [
        say("The {prompt} tokens of picture and prompt all see each other, forwards and backwards: the picture, though "
            "it stands first, is read knowing what is asked. All of them are given and none has to be guessed, so "
            "none need be hidden from another.", prompt=prompt),
        say("The answer is written token by token: each must be guessed before the next exists. The {answer} that the "
            "decoder read in its turn, to write on (all but the last), see the prompt, and of the answer what stands "
            "before them. In training, where the whole answer is there already, the mask alone hides what comes: a "
            "model that saw it would learn to copy, not to guess. Of all pairs, {full:.0%} are allowed; a causal mask "
            "would allow {causal:.0%}.",
            answer=answer, full=float(full.mean()), causal=float(causal.mean())),
    ]


def shared_heads(run: Run) -> Panel:
    """Several query heads on one head of keys and values."""
    cfg, block = run.model.config.text, run.block
    N, K, H = cfg.num_heads, cfg.num_kv_heads, cfg.head_dim
    names = [f"{block}.attn.{short}" for short in ("q", "k", "v", "scores", "mixed", "out")]
    looks = run[f"{block}.attn.probs"][0]
    spreads = [2.0 ** mean_entropy(head) for head in looks.reshape(N, *looks.shape[-2:])]
    return Panel(
        "grouped-heads", "Many questions, few labels",
        (
            say("The decoder asks with {heads} heads, and keeps keys and values for {kv} only: each of these serves "
                "{share} of the asking heads. A token's question is asked once, when it is read; its keys and values "
                "are asked for by every later token, and must be remembered. So fewer of them make the memory {share} "
                "times smaller, and cost little in quality.",
                heads=N, kv=K, share=N // K),
            say("Heads that share labels still ask differently: in block {block} the looks of the heads are spread "
                "over {spreads} tokens.", block=int(block.split(".")[2]),
                spreads=listed([f"{spread:.0f}" for spread in spreads])),
            say("The released models ask with {released}.", released=listed(
                f"{each.num_heads} heads on {each.num_kv_heads} ({name})" for name, each in DECODERS.items())),
        ),
        "Ainslie et al. 2023, sec. 2.2; Shazeer 2019, sec. 3",
        formulas(run, *names), (*code(run, *names), body(ops.group_heads)),
        (
            Figure(groups(N, K), say("Who asks whom: {heads} heads of {size} numbers above, {kv} below.",
                                     heads=N, size=H, kv=K)),
            Figure(curves({"spread": list(enumerate(spreads))}, "head", "tokens looked at"),
                   say("Over how many tokens each head of the block spreads its look.")),
        ),
    )
