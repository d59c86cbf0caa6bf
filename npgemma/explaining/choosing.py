"""From the last vector to the answer: lens, choice, memory, places.  Letters: D width, V vocabulary."""

import numpy as np

from npgemma import text
from npgemma.base.describe import size_of
from npgemma.explaining.code import body
from npgemma.explaining.curves import curves
from npgemma.explaining.panel import Figure, Panel, code, formulas, say
from npgemma.explaining.run import Run
from npgemma.generation import choosing, processors
from npgemma.show.lens import likeliest_of
from npgemma.show.token_table import pieces_of

# What is tried on each step's scores, and how many candidates are listed.
COOL, HOT, FEW, NUCLEUS = 0.5, 2.0, 3, 0.9
LISTED = 8
GUESSES = 3


def lens(run: Run) -> Panel:
    """What each block would say next, if it were the last one."""
    depth = run.model.config.text.depth
    pieces = answer_pieces(run)
    by_block = np.stack([run.steps(f"text.blocks.{n}.out") for n in range(depth)], axis=1)
    steps, settled, repeated = [], [], 0
    read = pieces_of(run.model.config, run.model.tokenizer, [int(run.question.ids[0, -1]), *run.answer.ids])
    for number, outs in enumerate(by_block):
        guesses = likeliest_of(run.model, outs, GUESSES)
        rows = [[f"block {n}", *(f"{piece}  {prob:.0%}" for piece, prob in row)] for n, row in enumerate(guesses)]
        steps.append({"name": step_name(number, pieces), "head": ["after",
                                                                  "likeliest", "second", "third"], "rows": rows})
        settled.append(since_when([row[0][0] for row in guesses]))
        repeated += guesses[0][0][0] == read[number]
    return Panel(
        "lens", "What each block would say",
        (
            say("The last token's vector goes through a last norm and is multiplied with every row of the token table: "
                "how well it agrees with a word is that word's score. One can do the same with the vector after any "
                "block, and see the answer take shape (a logit lens): choose a token of the answer and read down."),
            say("In {repeated} of {count} tables the likeliest after the first block is the token that was read last, "
                "as if the vector said no more yet than where it came from. A token is settled with the block after "
                "which it is the likeliest, and stays it to the end: here, on average, with block {settled:.1f}, where "
                "the first is block nought and the last block {last}.", repeated=repeated,
                count=len(pieces), settled=float(np.mean(settled)), last=depth - 1),
        ),
        "nostalgebraist 2020; Press & Wolf 2017",
        formulas(run, "text.norm", "text.logits"), (*code(run, "text.norm"), body(text.logits)), steps=steps,
    )


def since_when(guesses: list[str]) -> int:
    """From which block on the guess stays what it is in the end."""
    changed = [n for n, guess in enumerate(guesses) if guess != guesses[-1]]
    return changed[-1] + 1 if changed else 0


def answer_pieces(run: Run) -> list[str]:
    """The tokens of the answer."""
    return pieces_of(run.model.config, run.model.tokenizer, run.answer.ids)


def step_name(number: int, pieces: list[str]) -> str:
    """What a step is called in a list: ``3: ' green'``."""
    return f"{number}: {pieces[number]}"


def choice(run: Run) -> Panel:
    """The candidates for each token, and what settings would leave of them."""
    pieces, scores = answer_pieces(run), run.steps("text.logits")
    chosen = [float(processors.softmax(row[None])[0, token]) for row, token in zip(scores, run.answer.ids, strict=True)]
    least = int(np.argmin(chosen))
    steps = [
        {"name": step_name(number, pieces), "head": ["candidate", "score", "probability", f"temperature {COOL:g}",
         f"temperature {HOT:g}", f"top-k {FEW}", f"top-p {NUCLEUS:g}"], "rows": candidates(run, row)}
        for number, row in enumerate(scores)
    ]
    return Panel(
        "choice", "Choosing the next token",
        (
            say("Every one of {vocabulary:,} tokens has a score, and softmax makes probabilities of them. The "
                "likeliest was taken each time. The first token, {first}, had {sure:.1%}; the least sure was number "
                "{least}, {unsure}, with {unsure_prob:.1%}.",
                vocabulary=run.model.config.text.vocab_size, first=pieces[0], sure=chosen[0],
                least=least, unsure=pieces[least], unsure_prob=chosen[least]),
            say("One may draw instead, each token as often as its probability says. Before softmax all scores are "
                "divided by a temperature: below one it sharpens the differences, above one it levels them. Top-k "
                "leaves the best few; top-p leaves the fewest that together reach a share; what is left out can no "
                "longer come, and the others share its part. The columns on the right show what each would have made "
                "of this run; the code that draws did not run."),
            say("The probabilities of all tokens of the answer multiply to {product:.1%}: so likely is this whole "
                "answer among all that could be written.", product=float(np.prod(chosen))),
        ),
        "Holtzman et al. 2020, sec. 3.1 to 3.3; Fan et al. 2018",
        formulas(run, "text.logits"),
        (body(choosing.likeliest), body(choosing.draw), body(processors.top_k), body(processors.top_p)),
        (Figure(curves({"probability": list(enumerate(chosen))}, "token of the answer", "probability"),
                say("How likely each token of the answer was when it was chosen.")),),
        steps=steps,
    )


def candidates(run: Run, row: np.ndarray) -> list[list[str]]:
    """The likeliest tokens of one row of scores, with what each setting makes of them."""
    whole = row[None].astype(np.float64)
    ways = [whole, whole / COOL, whole / HOT, processors.top_k(whole, FEW), processors.top_p(whole, NUCLEUS)]
    probs = [processors.softmax(each)[0] for each in ways]
    best = np.argsort(-row, kind="stable")[:LISTED]
    pieces = pieces_of(run.model.config, run.model.tokenizer, best)
    return [
        [piece, f"{row[id]:.2f}", *(f"{each[id]:.2%}" if each[id] else "out" for each in probs)]
        for piece, id in zip(pieces, best, strict=True)
    ]


def memory(run: Run) -> Panel:
    """The cache grows by a row a token."""
    cfg, prompt = run.model.config.text, run.question.ids.shape[1]
    k, v = run[f"{run.block}.attn.k_rot"], run[f"{run.block}.attn.v"]
    row = (k[0, 0].nbytes + v[0, 0].nbytes) * cfg.depth
    read = [prompt + step for step in range(len(run.answer.ids))]
    again = sum(read)
    return Panel(
        "cache", "What is remembered",
        (
            say("What was read is not read again: of every token the turned label `k_rot` and the content `v` of each "
                "block are kept, in a cache. That is {row} a token, {start} after the prompt of {prompt} tokens, "
                "{end} at the end.",
                row=size_of(row), start=size_of(row * prompt), prompt=prompt, end=size_of(row * read[-1])),
            say("So the decoder read {once} tokens for this answer; without the memory it would have read {again:,}. "
                "It can remember, because nothing that was read looks at what is written later: the prompt sees "
                "itself, and the answer only backwards. Read once more, all of it would come out the same.",
                once=read[-1], again=again),
        ),
        "Shazeer 2019, sec. 2.4",
        formulas(run, f"{run.block}.attn.k_rot", f"{run.block}.attn.scores"),
        code(run, f"{run.block}.attn.k_rot", f"{run.block}.attn.v"),
        (Figure(curves({"tokens": [(step, float(size)) for step, size in enumerate(read)]}, "token of the answer",
                       "tokens remembered"), say("From {low} to {high} tokens.", low=read[0], high=read[-1])),),
    )
