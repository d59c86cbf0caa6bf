"""``npgemma score``: which of some given answers the model finds likeliest."""

import argparse
import math
from typing import Any

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.base.progress import Progress
from npgemma.generation.requests import prepare
from npgemma.generation.scoring import Scores, score
from npgemma.verbs.following import following
from npgemma.verbs.options import add_model_options, add_reading_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Score given answers to a prompt, the likeliest first.  The prompt is read once for all of them.

  npgemma score cat.jpg "answer en is there a cat?" yes no
  npgemma score cat.jpg "caption en" "a cat on a mat" "a dog" --json
  npgemma score cat.jpg "answer en how many cats?" 1 2 3 --by mean

Columns: log-likelihood of the whole answer, its mean a token, the answer's share among those given, its tokens.
The losses are those of a training batch of these answers: Hugging Face averages over all tokens, big_vision over each
answer first, without the final soft-cap."""


WORDS = "IMAGE PROMPT ANSWER [ANSWER ...]"


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "score", "rank given answers by their likelihood", DESCRIPTION, run, WORDS)
    parser.add_argument("image", metavar="IMAGE", help="a picture; - reads it from standard input")
    parser.add_argument("prompt", metavar="PROMPT", help="what is asked")
    parser.add_argument("answers", nargs="*", metavar="ANSWER", help="each in quotes if it has several words")
    parser.add_argument("--by", choices=("total", "mean"), default="total", help="rank by (default: total)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_reading_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Score, and return the exit code."""
    if args.no_image or args.ids is not None:
        shift_words(args)
    if not args.answers:
        raise InputError("no ANSWER was given; want at least one, behind the picture and the prompt")
    request = request_of(args)
    model, _ = load_model(args)
    asked = prepare(model, request)
    with Progress("reading the picture, the prompt and the answers") as progress:
        followed = following(model, progress, len(asked.ids), len(asked.pixels), 1, rows=len(args.answers))
        prompt, specials = request.prompt, request.specials
        scores = score(followed, request.image, prompt, args.answers, ids=request.ids, specials=specials)
    ranked = sorted(zip(args.answers, scores.answers, strict=True), key=lambda pair: -getattr(pair[1], args.by))
    if args.json:
        printer.say_json(as_object(ranked, scores))
        return 0
    for line in table(ranked):
        printer.say(line)
    printer.say(f"loss: {scores.hf_loss:.4f} (Hugging Face), {scores.big_vision_loss:.4f} (big_vision)")
    tell(scores.notes)
    return 0


def shift_words(args: argparse.Namespace) -> None:
    """Read the first words as answers, where there is no picture, or no prompt, for them to be."""
    words = [args.image, args.prompt, *args.answers]
    args.image = None if args.no_image else words.pop(0)
    args.prompt = None if args.ids is not None else words.pop(0)
    if args.no_image:
        args.image, args.prompt = args.prompt, None
    args.answers = words


def table(ranked: list) -> list[str]:
    """Give the ranking as lines of text."""
    shares = shares_of([each.total for _, each in ranked])
    lines = ["     total      mean  share  tokens  answer"]
    for (answer, each), share in zip(ranked, shares, strict=True):
        lines.append(f"{each.total:10.4f}{each.mean:10.4f}{100 * share:6.1f}%{len(each.ids):8d}  {answer}")
    return lines


def shares_of(totals: list[float]) -> list[float]:
    """Give the probability of each answer, if one of them it must be."""
    powers = [math.exp(total - max(totals)) for total in totals]
    return [power / sum(powers) for power in powers]


def as_object(ranked: list, scores: Scores) -> dict[str, Any]:
    """Give the ranking as a JSON object."""
    shares = shares_of([each.total for _, each in ranked])
    return {
        "answers": [
            {
                "answer": answer,
                "total": each.total,
                "mean": each.mean,
                "share": share,
                "ids": each.ids,
                "logprobs": each.logprobs,
                "uncapped_logprobs": each.uncapped_logprobs,
            }
            for (answer, each), share in zip(ranked, shares, strict=True)
        ],
        "loss": {"hf": scores.hf_loss, "big_vision": scores.big_vision_loss},
        "prompt_ids": scores.prompt_ids,
        "notes": scores.notes,
    }
