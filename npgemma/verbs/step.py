"""``npgemma step``: walk through the model in a terminal, a tensor at a time."""

import argparse
import contextlib
import sys

from npgemma.base import printer
from npgemma.cli import DONE
from npgemma.paligemma import Model
from npgemma.show.token_table import token_table
from npgemma.show.walk import HELP, Walk
from npgemma.tracing.plan import Question, ask, plan
from npgemma.tracing.selection import as_patterns
from npgemma.verbs import gradient_lines
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

# Of an answer, unless told: enough for a caption.
LONGEST = 32

DESCRIPTION = f"""Walk through the model in a terminal: for each tensor its formula, the source line that makes it, its
inputs and its values, a line each; through the prompt, then through each token of the answer.

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
    parser.add_argument("--backward", metavar="ANSWER", help="walk through gradients of the surprise at this answer")
    parser.add_argument("--max-tokens", type=int, metavar="N", help=f"longest answer (default: {LONGEST}); 0: none, "
                        "and all positions of the prompt are scored")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Walk, and return the exit code."""
    request = request_of(args)
    model, _ = load_model(args)
    if args.backward is not None:
        return gradient_lines.walk_back(model, request, args)
    question = ask(model, request)
    longest = room(model, question) if args.max_tokens is None else args.max_tokens
    tensors = plan(model, question, only=args.to, max_new_tokens=longest).everything
    tell(question.notes)
    with_history()
    printer.say(f"{prompt_table(model, question)}\n\n{len(tensors)} tensors{for_tokens(longest)}. Commands:\n{HELP}")
    Walk(model, question, tensors, longest).go(("*",) if args.to is None else as_patterns(args.to))
    return DONE


def room(model: Model, question: Question) -> int:
    """How long an answer may be where nobody says it: what the trained context leaves, if that is little."""
    return max(0, min(LONGEST, model.config.text.max_positions - question.ids.shape[1]))


def for_tokens(longest: int) -> str:
    """Of how many tokens of an answer a number of tensors is."""
    return f", with an answer of {longest} tokens" if longest else ""


def prompt_table(model: Model, question: Question) -> str:
    """The tokens of the prompt."""
    rows = question.ids[0], question.token_types[0], question.attention_mask[0], question.positions[0]
    return token_table(model.config, model.tokenizer, *rows)


def with_history() -> None:
    """Give the prompt arrows and a history, where Python has readline; nothing of it is written to a file."""
    if sys.__stdin__ is not None and sys.__stdin__.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
