"""``npgemma plan``: what a model costs, worked out without its weights."""

import argparse
from dataclasses import asdict

from npgemma.base import printer
from npgemma.config import VARIANTS
from npgemma.show.costs import PROMPT_TOKENS, as_text, find_config, plan
from npgemma.verbs.options import add_verb

DESCRIPTION = f"""Parameters, memory, operations and shapes of a model, without its weights.

  npgemma plan paligemma2-3b-224
  npgemma plan paligemma2-28b-896 --brief
  npgemma plan FOLDER --prompt-tokens 100 --json     a checkpoint, or a hub id in the local cache

Released variants: {", ".join(VARIANTS)}."""


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "plan", "what a model costs: memory, operations, shapes", DESCRIPTION, run)
    parser.add_argument(
        "variant", metavar="VARIANT", help="a released variant, a folder, or a hub id in the local cache"
    )
    parser.add_argument(
        "--prompt-tokens",
        type=int,
        default=PROMPT_TOKENS,
        metavar="N",
        help="<bos>, the prompt and its newline (default: %(default)s)",
    )
    parser.add_argument("--brief", action="store_true", help="leave out the tables of shapes")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    costs = plan(find_config(args.variant), args.variant, args.prompt_tokens)
    if args.json:
        found = asdict(costs)
        if args.brief:
            found = {name: value for name, value in found.items() if name not in ("weights", "tensors")}
        printer.say_json(found)
    else:
        printer.say(as_text(costs, shapes=not args.brief))
    return 0
