"""``npgemma vectors``: single operations on data made to break naive code."""

import argparse

from npgemma.base.errors import InputError
from npgemma.checkpoints.loading import load
from npgemma.config import VARIANTS
from npgemma.judge import vectors
from npgemma.verbs import judge_options
from npgemma.verbs.options import add_verb
from npgemma.verbs.pack import check_folder, write_ops

DESCRIPTION = """Write golden vectors of single operations: inputs, weights, results, accumulators, in a pack.

  npgemma vectors --op rms_norm -o NORMS                            at the lengths of PaliGemma 2 3B
  npgemma vectors --op linear --op scores --variant paligemma-3b-224 --raw -o OPS
  npgemma vectors --op gelu --box -o GELU                           at the lengths of the model in the box
  npgemma compare mine.npz --pack NORMS                             judge what a port makes of them

Results go by the case's name, such as rms_norm.2304.signed-wide; a product's float32 accumulator by the name with
.acc behind it, linear.2304.zeros.acc."""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "vectors", "golden vectors of single operations", DESCRIPTION, run)
    parser.add_argument(
        "--op", action="append", choices=tuple(vectors.MAKERS), required=True, help="an operation (repeatable)"
    )
    parser.add_argument("--variant", default="paligemma2-3b-224", help="whose lengths (default: %(default)s)")
    parser.add_argument("--box", action="store_true", help="the lengths of the model in the box")
    judge_options.add_recipe(parser)
    parser.add_argument(
        "--raw", action="store_true", help="add little-endian .bin with list.txt and a C header, and .npy"
    )
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="a new folder")


def run(args: argparse.Namespace) -> int:
    """Make the cases and write them."""
    check_folder(args.output)
    if args.variant not in VARIANTS:
        raise InputError(f"variant {args.variant!r}; want one of {', '.join(VARIANTS)}")
    cfg = load().config if args.box else VARIANTS[args.variant]
    return write_ops(args, [case for op in dict.fromkeys(args.op) for case in vectors.cases(op, cfg)], cfg)
