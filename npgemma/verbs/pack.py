"""``npgemma pack``: golden vectors of a whole run, with how to judge each."""

import argparse

from npgemma.base.describe import number_of, size_of
from npgemma.base.progress import Progress
from npgemma.cli import DONE
from npgemma.files import writer
from npgemma.judge import op_pack, vectors
from npgemma.judge.beside import of_weights
from npgemma.judge.pack import TIERS, plan_pack, write_pack
from npgemma.tracing.plan import ask
from npgemma.tracing.selection import as_patterns
from npgemma.verbs import judge_options
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Write a golden pack: a folder with manifest.json and tensors, in float64 and in a recipe.

  npgemma pack -o PACK                                              the model and a picture in the box, every tensor
  npgemma pack cat.jpg "caption en" --model FOLDER --tier residual -o PACK
  npgemma pack --tier summary -o PACK                               figures and samples only
  npgemma pack --tier op -o OPS                                     each operation alone, on hard data
  npgemma pack --select 'text.blocks.0.*' --raw -o PACK             with the raw form, for readers without Python"""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "pack", "golden vectors of a run, with how to judge each", DESCRIPTION, run)
    add_question_options(parser)
    group = parser.add_argument_group("pack")
    judge_options.add_recipe(group)
    group.add_argument("--tier", choices=TIERS, default="full", help="how much goes in (default: %(default)s)")
    group.add_argument("--select", action="append", metavar="GLOB", help="such as 'text.blocks.0.*' (repeatable)")
    group.add_argument(
        "--raw", action="store_true", help="add little-endian .bin with list.txt and a C header, and .npy"
    )
    group.add_argument("-o", "--output", required=True, metavar="FOLDER", help="a new folder")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Plan the pack, say its size, and write it."""
    check_folder(args.output)
    request = request_of(args)
    model, _ = load_model(args)
    if args.tier == "op":
        return write_ops(args, list(vectors.all_cases(model.config)), model.config)
    planned = plan_pack(model, ask(model, request), args.recipe, args.tier, as_patterns(args.select or ()))
    size = f"{size_of(planned.nbytes)} of numbers{' and as much raw' if args.raw else ''}"
    tell([f"{number_of(len(planned.chosen), 'tensor')}, {size}"])
    tell([said for said in [of_weights(model, args.recipe)] if said])
    with Progress("computing and writing") as progress:
        write_pack(planned, args.output, args.raw, progress)
    tell([f"written to {args.output}"])
    return DONE


def check_folder(path: str) -> None:
    """Refuse a target that cannot become a folder: one that is there, or bears a file's suffix."""
    writer.check_folder_name(path)
    writer.check_target(path, None)


def write_ops(args, cases, cfg) -> int:
    """Write cases of single operations as a pack."""
    with Progress("computing") as progress:
        held = op_pack.plan_files(cases, args.recipe, progress)
    tell([f"{len(cases)} cases, {size_of(op_pack.size_of(held, args.recipe))} of numbers"])
    op_pack.write_op_pack(cases, held, cfg, args.recipe, args.output, args.raw)
    tell([f"written to {args.output}"])
    return DONE
