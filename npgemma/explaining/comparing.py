"""Two runs side by side: what each answered, and which tensors part first."""

from itertools import zip_longest

import numpy as np

from npgemma.explaining.choosing import answer_pieces
from npgemma.explaining.curves import curves
from npgemma.explaining.heat import photograph
from npgemma.explaining.panel import Figure, Panel, say
from npgemma.explaining.run import Run
from npgemma.explaining.seeing import small
from npgemma.generation import processors
from npgemma.tracing.lockstep import distance

# So many tensors are listed, from the first that parts on.
LISTED = 16


def answers(run: Run, other: Run) -> Panel:
    """The two questions and the two answers."""
    pictures = [each.kept.picture for each in (run, other)]
    rows = zip_longest(range(max(len(each.answer.ids) for each in (run, other))), sure(run), sure(other), fillvalue="")
    return Panel(
        "compare-answers", "Two runs beside each other",
        (
            say("Everything above is about the first run: “{prompt}”, answered with “{answer}”. The second run, with "
                "the same model, was “{other_prompt}”, answered with “{other_answer}”.",
                prompt=run.question.prompt, answer=said(run), other_prompt=other.question.prompt,
                other_answer=said(other)),
        ),
        "Meng et al. 2022, sec. 2.1",
        figures=tuple(
            Figure(photograph(small(picture), f"picture of the {which} run"), say(f"The picture of the {which} run."))
            for which, picture in zip(("first", "second"), pictures, strict=True) if picture is not None
        ),
        table={"head": ["token", "first run", "second run"], "rows": [[str(cell) for cell in row] for row in rows]},
    )


def said(run: Run) -> str:
    """The answer, as ids where the model has no tokenizer."""
    return run.answer.text or " ".join(map(str, run.answer.ids))


def sure(run: Run) -> list[str]:
    """Each token of the answer, with its probability."""
    probs = [processors.softmax(row[None])[0, id]
             for row, id in zip(run.steps("text.logits"), run.answer.ids, strict=True)]
    return [f"{piece}  {prob:.0%}" for piece, prob in zip(answer_pieces(run), probs, strict=True)]


def tensors(run: Run, other: Run) -> Panel:
    """How far apart the tensors of the two prompts are, in order of execution."""
    apart = distances(run, other)
    parting = [name for name, relative in apart.items() if relative != 0.0]
    first = list(apart).index(parting[0]) if parting else len(apart)
    shown = list(apart.items())[first : first + LISTED]
    outs = {tower: [(n, apart.get(f"{tower}.blocks.{n}.out")) for n in range(getattr(run.model.config, tower).depth)]
            for tower in ("vision", "text")}
    drawn = {tower: [(n, gap) for n, gap in line if gap is not None] for tower, line in outs.items()}
    drawn = {tower: line for tower, line in drawn.items() if line}
    same = sum(relative == 0.0 for relative in apart.values())
    told = say("Of {count} tensors of the prompt, {same} are the same in both runs to the last bit, and {reshaped} "
               "have another length.", count=len(apart), same=same,
               reshaped=sum(relative is None for relative in apart.values()))
    parted = [say("In the order of the computation, the first that parts is `{first}`.",
                  first=parting[0])] if parting else []
    return Panel(
        "compare-tensors", "Which tensors part first", (told, *parted), "Meng et al. 2022, sec. 2.1",
        figures=(Figure(curves(drawn, "block", "distance"), say(
            "How far apart the two runs are after each block: the size of the difference over that of the first run's "
            "tensor.")),) if drawn else (),
        table={"head": ["tensor", "distance"], "rows": [
            [name, "another length" if relative is None else f"{relative:.3g}"] for name, relative in shown]},
    )


def distances(run: Run, other: Run) -> dict[str, float | None]:
    """For each tensor of both prompts its relative distance; None where its length is another one."""
    found: dict[str, float | None] = {}
    for name, x in run.arrays.items():
        if name.startswith("step.") or name not in other:
            continue
        if x.shape != other[name].shape:
            found[name] = None
        elif x.dtype.kind == "f":
            found[name] = distance(other[name], x)[0]
        else:
            found[name] = float(np.any(x != other[name]))
    return found
