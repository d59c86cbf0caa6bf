"""``npgemma inject``: the model goes on from a port's tensors, and says whether what comes behind is right."""

import argparse

from npgemma.base import printer
from npgemma.base.progress import Progress
from npgemma.judge.feeding import injected
from npgemma.judge.goldens import guessed_recipe
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.plan import ask
from npgemma.verbs import judge_options
from npgemma.verbs.following import following_question
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of

DESCRIPTION = """Go on from a port's tensor, and compare what comes behind it with the port's own.

  npgemma inject mine.safetensors --at text.blocks.1.out
  npgemma inject mine.safetensors cat.jpg "caption en" --model FOLDER

Without --at the first tensor of the file goes in.  If everything behind is right, the fault lies before it."""


def add(subparsers) -> None:
    """Describe the arguments."""
    words = "THEIRS [IMAGE ...] [PROMPT]"
    parser = add_verb(subparsers, "inject", "go on from a port's tensor", DESCRIPTION, run, words)
    parser.add_argument("theirs", metavar="THEIRS", help="the port's tensors, as compare takes them")
    add_question_options(parser)
    judge_options.add_recipe(parser, None)
    parser.add_argument("--at", metavar="NAME", help="the tensor of theirs that goes in, by npgemma's name")
    parser.add_argument(
        "--map", metavar="NAMES.json", help="their names to npgemma's, where the table does not know them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Inject, compare, and return the exit code."""
    theirs = open_theirs(args.theirs)
    names_map = judge_options.read_map(args.map)
    request = request_of(args)
    model, _ = load_model(args)
    recipe = args.recipe or guessed_recipe(theirs)
    question = ask(model, request)
    with Progress("going on from theirs") as progress:
        followed = following_question(model, progress, question, again=1)
        found = injected(followed, question, recipe, theirs, names_map, args.at)
    if args.json:
        printer.say_json({"at": found.at, "first": found.first, "rows": found.rows})
    else:
        for row in found.rows:
            printer.say(f"{row['name']}: error {row['ratio']:.3g} times the recipe's own  {row['verdict']}")
        printer.say(found.summary)
    return judge_options.MISMATCH if found.first else done_or_nothing(found)


def done_or_nothing(found) -> int:
    """4 where nothing came behind that could be compared."""
    return judge_options.DONE if found.rows else judge_options.INCOMPARABLE
