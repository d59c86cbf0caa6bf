"""``npgemma explain``: a page that shows what every component did with a picture and a prompt."""

import argparse
from dataclasses import replace
from pathlib import Path

from npgemma.base import printer
from npgemma.base.describe import size_of
from npgemma.base.errors import InputError
from npgemma.base.progress import Progress
from npgemma.cli import DONE
from npgemma.explaining.page import engine, page, panels
from npgemma.explaining.run import MOST_TOKENS, Kept, observed, prepared
from npgemma.files.writer import check_target, write_file
from npgemma.generation.requests import Request
from npgemma.verbs.finder import Finder, add_place_options
from npgemma.verbs.options import (
    add_model_options,
    add_question_options,
    add_verb,
    load_model,
    read_pictures,
    request_of,
    tell,
)

DESCRIPTION = """Explain every component of the model on one picture and one prompt, in a page for any browser.

  npgemma explain                                        the model and a picture in the box
  npgemma explain cat.jpg "caption en" -o cat.html
  npgemma explain cat.jpg "caption en" --compare dog.jpg
  npgemma explain cat.jpg "detect cat" --model google/paligemma2-3b-mix-224 --dtype bfloat16

The page is one file: it asks no server and no network for anything, so it can be sent to a friend."""

REPORT, MAX_TOKENS = "report.html", 32


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "explain", "one page that shows every component on this picture", DESCRIPTION, run)
    add_question_options(parser)
    group = parser.add_argument_group("the page")
    group.add_argument("-o", "--output", default=REPORT, metavar="REPORT.html", help=f"its name (default: {REPORT})")
    group.add_argument("--force", action="store_true", help="let it replace a file that is there")
    group.add_argument("--compare", metavar="IMAGE2", help="beside it, a run with another picture")
    group.add_argument("--compare-prompt", metavar="PROMPT2", help="beside it, a run with another prompt")
    group.add_argument("--max-tokens", type=int, default=MAX_TOKENS, metavar="N",
                       help=f"longest answer, at most {MOST_TOKENS} (default: {MAX_TOKENS})")
    add_place_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the model, write the page, and return the exit code."""
    if Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {args.output}: want a name that ends in .html")
    templates = engine()  # what is missing, or in the way, is said before a large model is loaded
    check_target(args.output, args.force)
    request = request_of(args)
    other = other_request(args, request)
    model, _ = load_model(args)
    find = Finder(args, model)
    kept = prepared(model, request, args.max_tokens)
    second = prepared(model, other, args.max_tokens) if other else None
    tell([*kept.planned.question.notes, size_line(kept)])
    with Progress("looking at the tensors") as progress:
        found = observed(kept, progress)
        progress.begin("looking at the tensors of the second run")
        beside = None if second is None else observed(second, progress)
    places = tuple(find(found.answer, request.image)[0])
    shown = replace(found, places=places)
    data = page(shown, panels(shown, beside), templates).encode("utf-8")
    write_file(args.output, data, args.force)
    printer.say(f"{args.output}  {size_of(len(data))}  open it in a browser")
    return DONE


def other_request(args: argparse.Namespace, request: Request) -> Request | None:
    """The question of a second run, if there is to be one."""
    if args.compare is None and args.compare_prompt is None:
        return None
    if args.compare is not None and request.image is None:
        raise InputError("--compare: the first run has no picture to be compared with; leave out --no-image")
    if args.compare_prompt is not None and request.ids is not None:
        raise InputError("--compare-prompt: the first run has ids in the place of a prompt; leave out --ids")
    image = request.image if args.compare is None else read_pictures([args.compare])
    prompt = request.prompt if args.compare_prompt is None else args.compare_prompt
    return replace(request, image=image, prompt=prompt)


def size_line(kept: Kept) -> str:
    """Say beforehand what is kept."""
    text = f"keeps at most {size_of(kept.nbytes)} of tensors; the largest it looks at has {size_of(kept.largest)}"
    depth = kept.planned.model.config.text.depth
    few = len(kept.reading) < depth
    return text + few * f"; where heads look in {len(kept.reading)} of the decoder's {depth} blocks"
