"""``npgemma faults``: what a port with a known fault would have written down, to test one's own judge."""

import argparse
from pathlib import Path

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.base.option_names import meant
from npgemma.base.progress import Progress
from npgemma.cli import DONE
from npgemma.files import writer
from npgemma.files.arrays_writer import format_of
from npgemma.judge import tensor_file
from npgemma.judge.beside import given_of, sources_of
from npgemma.judge.comparison import STEP
from npgemma.judge.diagnose import NOT_POSSIBLE
from npgemma.judge.fault_list import FAULTS, VARIANTS
from npgemma.judge.play import play
from npgemma.judge.rerun import stored_as
from npgemma.tracing.plan import ask
from npgemma.verbs import judge_options
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Write the tensors of a port that has a known fault.

  npgemma faults --list                                             all faults, a line each
  npgemma faults rms-norm-without-one -o wrong.safetensors          of the model and a picture in the box
  npgemma compare wrong.safetensors                                 and what the judge says of it
  npgemma faults cache-rolled --max-tokens 4 -o wrong.safetensors   steps too: step.0.text.logits and so on
  npgemma faults --all --recipe bf16-hf-eager -o FOLDER             a file a fault"""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(
        subparsers, "faults", "tensors of a port with a known fault", DESCRIPTION, run, "[NAME] [IMAGE ...] [PROMPT]"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a fault of --list, or 'none'")
    add_question_options(parser)
    parser.add_argument("--list", action="store_true", help="all faults, and other ways to be right")
    parser.add_argument("--all", action="store_true", help="every fault that the model can have, into a folder")
    parser.add_argument("--json", action="store_true", help="the list as JSON")
    judge_options.add_recipe(parser)
    parser.add_argument(
        "--max-tokens", type=int, default=0, metavar="N", help="generate, greedily, and write steps too (default: 0)"
    )
    parser.add_argument("-o", "--output", metavar="OUT",
                        help="OUT.safetensors, OUT.npz, or OUT, a folder of .npy; with --all a folder of .safetensors")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """List faults, or write what they lead to."""
    if args.list:
        return show_list(args)
    if args.all == (args.name is not None) and args.all or not args.all and args.name is None:
        raise InputError("want the name of one fault, or --all, or --list")
    if args.output is None:
        raise InputError("-o is missing: where to write the tensors to")
    if not args.all and args.name not in [*FAULTS, *VARIANTS, "none"]:
        near = meant(args.name, FAULTS)
        raise InputError(f"{args.name!r:.80} is no fault; npgemma faults --list names {len(FAULTS)}{near}")
    if not args.all:
        format_of(args.output)
    writer.check_target(args.output, None)
    request = request_of(args)
    model, _ = load_model(args)
    given = given_of(ask(model, request), model.config, sources_of(model, request))
    steps = max(0, args.max_tokens - 1)  # the first token follows from the prompt
    if not args.all:
        fault = {**FAULTS, **VARIANTS}.get(args.name)
        with Progress("computing") as progress:
            write_port(model, given, args.recipe, fault, Path(args.output), steps, progress)
    else:
        write_all(args, model, given, steps)
    tell([f"written to {args.output}"])
    return DONE


def write_all(args, model, given, steps) -> None:
    """Write a file a fault into a new folder."""
    with writer.writing_folder(args.output) as folder:
        for name, fault in FAULTS.items():
            try:
                with Progress(name) as progress:
                    write_port(model, given, args.recipe, fault, folder / f"{name}.safetensors", steps, progress)
            except NOT_POSSIBLE:
                tell([f"{name}: this model cannot have it"])


def show_list(args) -> int:
    """Print all faults."""
    listed: list[dict] = [
        {"name": fault.name, "sentence": fault.sentence, "rows": list(fault.changes), "right": fault.name in VARIANTS}
        for fault in (*FAULTS.values(), *VARIANTS.values())
    ]
    if args.json:
        printer.say_json(listed, indent=1)
        return DONE
    width = max(len(each["name"]) for each in listed)
    for each in listed:
        printer.say(f"{each['name']:{width}}  {each['sentence']}{' (as right)' if each['right'] else ''}")
    return DONE


def kind_of(name, array, recipe) -> str:
    """In what numbers a tensor is written."""
    if array.dtype.kind == "f":
        return stored_as(STEP.sub("", name, count=1), recipe)
    return "boolean" if array.dtype == bool else "integer"


def write_port(model, given, recipe, fault, path: Path, steps, progress) -> None:
    """Evaluate the whole table under a fault, and steps behind it, into a file."""
    arrays = dict(play(model, recipe, given, fault, steps, progress))
    kinds = {name: (kind_of(name, array, recipe), array.shape) for name, array in arrays.items()}
    with tensor_file.writing(path, kinds) as file:
        for name, array in arrays.items():
            file.put(name, array)
