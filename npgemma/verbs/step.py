"""``npgemma step``: walk through the model in a terminal, a tensor at a time."""

import argparse
import bdb
import contextlib

from npgemma.base import printer
from npgemma.cli import DONE
from npgemma.paligemma import forward
from npgemma.show.walk import HELP, Walk
from npgemma.tracing.plan import ask, plan
from npgemma.tracing.trace import Stopped
from npgemma.verbs import gradient_lines
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = f"""Walk through the model in a terminal: for each tensor its formula, the source line that makes it, its
inputs and its values, a line each.

  npgemma step                            the model and a picture in the box
  npgemma step cat.jpg "caption en" --to text.blocks.0.attn.scores
  npgemma step cat.jpg "caption en" --backward "a cat"     the gradients, from the last tensor to the first

Commands:
{HELP}"""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "step", "walk through the model, tensor by tensor", DESCRIPTION, run)
    add_question_options(parser)
    parser.add_argument("--to", metavar="GLOB", help="run to this tensor first")
    parser.add_argument("--backward", metavar="ANSWER", help="walk through the gradients of the surprise at this answer")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Walk, and return the exit code."""
    request = request_of(args)
    model, _ = load_model(args)
    if args.backward is not None:
        return gradient_lines.walk_back(model, request, args)
    question = ask(model, request)
    tensors = plan(model, question, only=args.to).everything
    tell(question.notes)
    walk = Walk(model, question, tensors)
    if args.to is not None:
        walk.until = (args.to,)
    printer.say(f"{walk.table()}\n\n{len(tensors)} tensors. Commands:\n{HELP}")
    with contextlib.suppress(Stopped, bdb.BdbQuit):
        forward(
            model, question.ids, question.pixels, question.token_types, question.attention_mask, question.positions,
            observe=walk,
        )
        printer.say("\nThat was the last tensor.")
    return DONE
