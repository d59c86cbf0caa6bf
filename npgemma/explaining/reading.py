"""From tokens to the residual stream: what the decoder does with them.  Letters: B batch, T positions, D width."""

import numpy as np

from npgemma import ops, rotary
from npgemma.base.device import to_host
from npgemma.explaining.code import body
from npgemma.explaining.curves import curves, wheels
from npgemma.explaining.heat import heat
from npgemma.explaining.mathml import written
from npgemma.explaining.panel import Figure, Panel, code, formulas, say
from npgemma.explaining.run import Run
from npgemma.explaining.seeing import drawn, rms
from npgemma.show.token_table import groups, pieces_of, roles_of, span

# By how many positions both of a pair are moved, to show that only their distance counts.
MOVED = 100
HANDS = 5
CHANNELS = 8


def token_table(run: Run) -> Panel:
    """The prompt as the model reads it."""
    question, cfg = run.question, run.model.config
    ids = question.ids[0].tolist()
    roles = roles_of(cfg, ids, question.token_types[0], question.attention_mask[0])
    pieces = pieces_of(cfg, run.model.tokenizer, ids)
    rows = [
        [span(low, high - 1), pieces[low] + (f" × {high - low}" if high - low > 1 else ""), str(ids[low]), roles[low],
         span(int(question.positions[0, low]), int(question.positions[0, high - 1]))]
        for low, high in groups(roles)
    ]
    return Panel(
        "tokens", "The prompt becomes tokens",
        (
            say("Text is cut into pieces out of a vocabulary of {vocabulary:,}; each piece has a number, its id. Your "
                "prompt became {words} tokens, counting `<bos>`, the sign of the beginning, and the newline at the "
                "end, which are always there.",
                vocabulary=cfg.text.vocab_size, words=len(ids) - roles.count("image")),
            say("The picture holds its place with {image} tokens of the id {id}, one a patch, before the text: "
                "{length} in all.", image=roles.count("image"), id=cfg.image_token_id, length=len(ids)),
        ),
        "Kudo & Richardson 2018; Beyer et al. 2024, sec. 3.1",
        table={"head": ["place", "piece", "id", "role", "position"], "rows": rows},
    )


def splice(run: Run) -> Panel:
    """Soft tokens take the places of image tokens."""
    cfg, ids = run.model.config, run["ids"][0]
    names = ["text.embedded", "text.spliced"] if run.sees else ["text.embedded"]
    spliced, image = run["text.spliced"][0], ids == cfg.image_token_id
    sizes = np.sqrt(np.mean(np.square(spliced, dtype=np.float64), axis=-1))
    sentences = [
        say("The row of each id in a table of {vocabulary:,} rows is looked up, and multiplied by the root of the "
            "vector's width, {scale:.2f}, as Gemma always did. A token has become a vector of {width} numbers.",
            vocabulary=cfg.text.vocab_size, scale=cfg.text.embed_scale, width=cfg.text.width),
    ]
    if run.sees:
        sentences.append(
            say("Where image tokens stand, soft tokens are put in the place of what was looked up, and are not "
                "multiplied. After that the decoder makes no difference between {image} patches and {words} words: all "
                "are vectors in one row.",
                image=int(run.question.ids[0].tolist().count(cfg.image_token_id)), words=int((~image).sum())))
    return Panel(
        "splice", "Picture and words in one row", tuple(sentences), "Beyer et al. 2024, sec. 3.1 and fig. 2",
        formulas(run, *names), (*code(run, *names), body(ops.splice)),
        (
            drawn(run, names[-1], say("All that the decoder reads: a row a token.")),
            Figure(curves({"size": list(enumerate(sizes.tolist()))}, "token", "typical size of a number"),
                   say("How large the numbers of each token are: from {low:.2f} to {high:.2f}.",
                       low=float(sizes.min()), high=float(sizes.max()))),
        ),
    )


def decoder_block(run: Run) -> Panel:
    """What follows what in a block, and where each norm stands."""
    cfg, block = run.model.config.text, run.block
    names = ["attn_norm", "attn.out", "attn_post_norm", "middle", "mlp_norm", "mlp.out", "mlp_post_norm", "out"]
    names = [f"{block}.{name}" for name in names if cfg.post_norms or "post" not in name] + ["text.norm"]
    middle = ("What either gives goes through one more norm before it is added (`attn_post_norm`, `mlp_post_norm`), so "
              "that it cannot outweigh the rest." if cfg.post_norms else "What they give is added as it is.")
    return Panel(
        "decoder-block", "One block of the decoder, in order",
        (
            say("The decoder has {depth} such blocks. Each does two things, and adds the outcome of each to the vector "
                "it was given: first every token looks around (`attn`), then it is worked on by itself (`mlp`). Before "
                "both stands a norm (`attn_norm`, `mlp_norm`). " + middle + " After the last block comes a last norm "
                "(`text.norm`).", depth=cfg.depth),
            say("All of them are RMS norms, those of the tower are layer norms. The next sections open what is in "
                "here: positions, who may look at whom, heads, norms, MLP, and what the adding does."),
        ),
        "Gemma Team 2024 (Gemma 2), sec. 2" if cfg.post_norms else "Gemma Team 2024, sec. 2",
        formulas(run, *names), code(run, *names),
    )


def rotation(run: Run) -> Panel:
    """Rotary positions: wheels, and why only differences count."""
    cfg, block = run.model.config.text, run.block
    H = cfg.head_dim
    radians = rotary.angles(np.arange(HANDS)[None], H, cfg.rope_theta, np.float64)[0]
    pairs = sorted({round(number) for number in np.linspace(0, H // 2 - 1, 4)})
    late, early = int(run["positions"][0, -1]), int(run["positions"][0, -2])
    here, moved = score_at(run, late, early), score_at(run, late + MOVED, early + MOVED)
    names = ["text.cos", "text.sin", f"{block}.attn.q_rot", f"{block}.attn.k_rot"]
    return Panel(
        "rotary", "Positions are turns of wheels",
        (
            say("The decoder adds no position to a vector. It takes the numbers of each question and label in {pairs} "
                "pairs, each number of its first half with its fellow of the second. Such a pair is an arrow on a "
                "wheel: so far to the right, so far up. Every wheel is turned by the token's position times its own "
                "speed: the fastest by {fast:.2f} radians a position (a whole turn has somewhat more than six), the "
                "slowest by {slow:.2g}.",
                pairs=H // 2, fast=float(radians[1, 0]), slow=float(radians[1, -1])),
            say("A score is the sum, over the pairs, of the product of the question's arrow and the label's: right "
                "times right, and up times up. Such a product depends on their lengths, which no turn changes, and on "
                "the angle between them, which stays when both are turned alike. So what counts is by how much more "
                "the one was turned than the other: how far apart the tokens stand, and not where. Here the last "
                "token asks the one before it (positions {late} and {early}), and the first head's score in block "
                "{block} is {here:.4f}; with both moved on by {moved} positions it is "
                "{there:.4f}.", block=int(block.split(".")[2]),
                late=late, early=early, here=here, moved=MOVED, there=moved),
        ),
        "Su et al. 2021, sec. 3.2.2 and 3.4.1",
        formulas(run, *names), (*code(run, *names), body(rotary.angles), body(rotary.rotate)),
        (
            Figure(wheels([radians[:, pair].tolist() for pair in pairs], [f"pair {pair}" for pair in pairs]),
                   say("{count} of the wheels, with a hand for each of the first {hands} positions.",
                       count=len(pairs), hands=HANDS)),
            Figure(heat(run["text.cos"][0], "text.cos"), say("Cosines of the turns: a row a token, a column a pair."),
                   run.lines["text.cos"]),
        ),
    )


def score_at(run: Run, late: int, early: int) -> float:
    """The first head's score of the prompt's last token on the one before it, as if they stood at these positions."""
    cfg = run.model.config.text
    q, k = (run[f"{run.block}.attn.{short}"][0, place, 0].astype(np.float64) for short, place in (("q", -1), ("k", -2)))
    turned = []
    for x, position in ((q, late), (k, early)):
        radians = rotary.angles(np.array([[position]]), cfg.head_dim, cfg.rope_theta, np.float64)
        turned.append(rotary.rotate(x[None, None, None], np.cos(radians), np.sin(radians), float_as_it_is)[0, 0, 0])
    return float(turned[0] @ turned[1]) * cfg.query_scale


def float_as_it_is(x):
    """No rounding."""
    return x


def norms(run: Run) -> Panel:
    """RMS norm, beside layer norm and batch norm, on the same numbers."""
    cfg, block = run.model.config, run.block
    number = int(block.split(".")[2])
    entering = run["text.spliced" if not number else f"text.blocks.{number - 1}.out"][0].astype(np.float64)
    gain = to_host(run.model.weights[f"{block}.attn_norm.weight"]).astype(np.float64)
    x, eps = entering[-1], cfg.text.norm_eps
    zero, one = np.zeros_like(gain), np.ones_like(gain)
    plain = ops.rms_norm(x, zero, eps)
    layer = ops.layer_norm(x, one, zero, eps)
    batch = ops.layer_norm(entering.T, np.ones(len(entering)), np.zeros(len(entering)), eps).T[-1]
    rows = [[str(place), *(f"{each[place]:.3f}" for each in (x, plain, ops.rms_norm(x, gain, eps), layer, batch))]
            for place in range(min(CHANNELS, len(x)))]
    return Panel(
        "norms", "Three ways to bring numbers to one scale",
        (
            say("RMS norm, the decoder's, divides a vector by the typical size of its own numbers ({before:.2f} for "
                "the last token before block {block}), so that this size becomes {after:.2f}. Then each number is "
                "multiplied by its learned gain, `1 + weight`: Gemma stores gains as offsets from one. A weight of "
                "nought, with which training begins and to which it pulls what it has no use for, then leaves a "
                "number as it is, and does not wipe it out. The gains here lie between {least:.2f} and {most:.2f}. "
                "Who forgets the `1 +` multiplies by the stored weights themselves, whose typical size is "
                "{forgotten:.2f}.",
                before=rms(x), block=number, after=rms(plain), least=float(1 + gain.min()), most=float(1 + gain.max()),
                forgotten=rms(gain)),
            say("Layer norm, the tower's, takes the vector's own mean away first ({mean:.3f} for this vector, if it "
                "were used here). Batch norm, which this model has nowhere, would take mean and size over all "
                "{tokens} tokens for each number: what one token becomes would depend on the "
                "others.", mean=float(x.mean()), tokens=len(entering)),
        ),
        "Zhang & Sennrich 2019, eq. 4; Ba et al. 2016, eq. 3; Ioffe & Szegedy 2015, alg. 1",
        (
            *formulas(run, f"{block}.attn_norm"), *(formulas(run, "vision.norm") if run.sees else ()),
            written("batch_norm(x)"),
        ),
        (*code(run, f"{block}.attn_norm"), body(ops.rms_norm), body(ops.layer_norm)),
        (drawn(run, f"{block}.attn_norm", say("After the norm: a row a token.")),),
        table={"head": ["number", "before", "RMS norm, no gain", "RMS norm × (1 + weight)", "layer norm, no gain",
                        "batch norm, no gain"], "rows": rows},
    )


def soft_cap(run: Run) -> Panel:
    """Scores and logits are bounded, smoothly."""
    cfg, block = run.model.config.text, run.block
    scores = run[f"{block}.attn.scores"]
    names = [f"{block}.attn.capped"] * (cfg.attn_softcap is not None)
    if cfg.attn_softcap is None:
        sentence = say("Gemma of the second generation bounds its scores; this model is of the first, and leaves them "
                       "as they are: the largest one in block {block} is {largest:.2f}.",
                       block=int(block.split(".")[2]), largest=float(scores.max()))
        return Panel("soft-cap", "No cap on scores", (sentence,), "Gemma Team 2024 (Gemma 2), sec. 2",
                     code=(body(ops.soft_cap),))
    capped, cap = run[names[0]], cfg.attn_softcap
    most = max(3 * cap, float(np.abs(scores).max()))
    xs = np.linspace(-most, most, 121)
    line = list(zip(xs.tolist(), ops.soft_cap(xs, cap, float_as_it_is).tolist(), strict=True))
    return Panel(
        "soft-cap", "A soft cap on scores",
        (
            say("If one score ran away from the others, softmax would give one token all the weight, and training "
                "could hardly change that again. So the decoder's scores pass through a curve that leaves small ones "
                "nearly as they are and never goes beyond {cap:.0f}: the largest one in block {block} was "
                "{largest:.2f} and became {capped:.2f}. The tower has no cap.",
                cap=cap, block=int(block.split(".")[2]), largest=float(scores.max()),
                capped=float(capped.max())),
            *([] if cfg.final_softcap is None else [
                say("The scores of the next token are bounded likewise, by {final_cap:.0f}; the largest for the first "
                    "token of this answer is {top:.2f}.",
                    final_cap=cfg.final_softcap, top=float(run["text.logits"].max()))]),
        ),
        "Gemma Team 2024 (Gemma 2), sec. 2",
        formulas(run, *names, "text.logits"), (*code(run, *names), body(ops.soft_cap)),
        (Figure(curves({"soft cap": line}, "score", "after the cap"),
                say("The cap. Scores of this block lie between {low:.1f} and {high:.1f}.",
                    low=float(scores.min()), high=float(scores.max()))),),
    )


def gated_mlp(run: Run) -> Panel:
    """Two lists, of which one opens the other."""
    cfg, block = run.model.config.text, run.block
    names = [f"{block}.mlp.{short}" for short in ("gate", "opened", "up", "hidden", "out")]
    gate, hidden = run[names[0]], run[names[3]]
    loud = np.sort(np.abs(hidden[0, -1].astype(np.float64)))[::-1]
    few = max(1, len(loud) // 100)
    return Panel(
        "mlp", "One list opens the other",
        (
            say("After looking around, each token is worked on by itself, by an MLP. Two matrices widen its vector, "
                "each to {wide} numbers. Those of the first go through GELU and are gates: the larger the number, the "
                "wider open. Those of the second are what may pass. They are multiplied, gate by gate, and narrowed "
                "again. The tower's MLP has one such list only, which goes through GELU itself; here what passes, and "
                "when, are learned apart.", wide=cfg.mlp_width),
            say("Here {closed:.0%} of the gates are at or below nought: shut, but for the little that GELU leaves. "
                "For the last token the loudest {few} of the {wide} products hold {share:.0%} of all their size.",
                closed=float(np.mean(gate <= 0)), few=few, wide=cfg.mlp_width,
                share=float(loud[:few].sum() / loud.sum())),
        ),
        "Shazeer 2020, eq. 6 (GEGLU)",
        formulas(run, *names), code(run, *names),
        tuple(drawn(run, name, say(caption)) for name, caption in zip(names[:4], (
            "Gates, before GELU.", "Gates, after GELU: near nought they are shut.", "What may pass.",
            "Gate times content."),
            strict=True)),
    )


def residual(run: Run) -> Panel:
    """The stream that every block adds to."""
    cfg, image = run.model.config, run["ids"][0] == run.model.config.image_token_id
    names = ["text.spliced", *(f"text.blocks.{n}.out" for n in range(cfg.text.depth))]
    kinds = {"words": ~image} | ({"picture": image} if run.sees else {})
    lines = {kind: [rms(run[name][0][which]) for name in names] for kind, which in kinds.items()}
    last, first = run[names[-1]][0, -1].astype(np.float64), run[names[0]][0, -1].astype(np.float64)
    cosine = float(last @ first / np.sqrt((last @ last) * (first @ first)))
    block = run.block
    branch = (f"{block}.attn_post_norm",) * cfg.text.post_norms
    return Panel(
        "residual", "A stream that every block adds to",
        (
            say("No block replaces a token's vector; each adds something to it, twice: the residual stream. So sizes "
                "add up: a typical number of a word has the size {first:.2f} before the first block and {last:.2f} "
                "after the last, {times:.1f} times as much.", first=lines["words"][0], last=lines["words"][-1],
                times=lines["words"][-1] / lines["words"][0]),
            say("How much of what came in is still to be seen? The last token's vector has a cosine of {cosine:.2f} "
                "with what it was: one would be the same direction, nought would be none of it. What it has become, "
                "the next section reads.", cosine=cosine),
        ),
        "He et al. 2016, eq. 1; Vaswani et al. 2017, sec. 3.1",
        formulas(run, f"{block}.middle", f"{block}.out"),
        code(run, f"{block}.middle", *branch, f"{block}.out"),
        (
            Figure(curves({kind: list(enumerate(sizes)) for kind, sizes in lines.items()}, "after so many blocks",
                          "typical size of a number"),
                   say("Growth of the stream, from what enters to the last block.")),
            drawn(run, f"{block}.out", say("The stream after the opened block: a row a token.")),
        ),
    )
