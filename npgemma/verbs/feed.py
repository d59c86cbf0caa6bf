"""``npgemma feed``: the golden inputs of one operation, so that a port can run it alone."""

import argparse

from npgemma.base.expressions import explained
from npgemma.base.progress import Progress
from npgemma.cli import DONE
from npgemma.files import writer
from npgemma.files.arrays_writer import format_of
from npgemma.judge.feeding import fed, write_fed
from npgemma.tracing.plan import ask
from npgemma.verbs import judge_options
from npgemma.verbs.following import following_question
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Write what one operation reads: tensors and weights, and what it makes of them.

  npgemma feed text.blocks.0.attn_norm -o norm.safetensors
  npgemma feed text.blocks.3.attn.scores cat.jpg "caption en" --model FOLDER -o scores.safetensors

The file holds inputs by their names, weights by theirs (….weight), and the result as want/NAME."""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(
        subparsers, "feed", "the golden inputs of one operation", DESCRIPTION, run, "NAME [IMAGE ...] [PROMPT]"
    )
    parser.add_argument("name", metavar="NAME", help="a tensor, such as text.blocks.0.attn_norm")
    add_question_options(parser)
    judge_options.add_recipe(parser)
    parser.add_argument("-o", "--output", required=True, metavar="OUT",
                        help="OUT.safetensors, OUT.npz, or OUT, a folder of .npy")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the model as far as needed, and write the file."""
    format_of(args.output)
    writer.check_target(args.output, None)
    request = request_of(args)
    model, _ = load_model(args)
    question = ask(model, request)
    with Progress("computing") as progress:
        found = fed(following_question(model, progress, question), question, args.recipe, args.name)
    write_fed(args.output, found)
    tell(
        [
            f"{args.name} = {explained(args.name, found.tensor, model.config, found.call)}",
            f"{len(found.arrays)} arrays written to {args.output}",
        ]
    )
    return DONE
